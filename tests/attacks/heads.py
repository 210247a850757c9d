"""What does a request's head say? Attacks on its line, Host, names, hop-by-hop fields, and what is ours."""

from __future__ import annotations

from tests.attacks.case import EVIL, NONCE, SPOOFED, Attack, Clean, Own, Refused, post, request

_HEAD = b"Host: gateway.test\r\nX-Nonce: %b\r\n\r\n" % NONCE
_VERSION = b"Sec-WebSocket-Version: 13"
_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))

_LINES = {
    "HTTP/0.9": (b"GET /r/bid\r\n\r\n", 400),
    "HTTP/0.9 with fields": (b"GET /r/bid\r\n" + _HEAD, 400),
    "version 0.9": (b"GET /r/bid HTTP/0.9\r\n" + _HEAD, 505),
    "version 1.2": (b"GET /r/bid HTTP/1.2\r\n" + _HEAD, 505),
    "version 2.0": (b"GET /r/bid HTTP/2.0\r\n" + _HEAD, 505),
    "version 3.0": (b"GET /r/bid HTTP/3.0\r\n" + _HEAD, 505),
    "version 9.9": (b"GET /r/bid HTTP/9.9\r\n" + _HEAD, 505),
    "version 2": (b"GET /r/bid HTTP/2\r\n" + _HEAD, 400),
    "version 1": (b"GET /r/bid HTTP/1\r\n" + _HEAD, 400),
    "version 1.": (b"GET /r/bid HTTP/1.\r\n" + _HEAD, 400),
    "version 1.10": (b"GET /r/bid HTTP/1.10\r\n" + _HEAD, 400),
    "version 01.1": (b"GET /r/bid HTTP/01.1\r\n" + _HEAD, 400),
    "version 1.1x": (b"GET /r/bid HTTP/1.1x\r\n" + _HEAD, 400),
    "version -1.1": (b"GET /r/bid HTTP/-1.1\r\n" + _HEAD, 400),
    "version 1,1": (b"GET /r/bid HTTP/1,1\r\n" + _HEAD, 400),
    "version with a space": (b"GET /r/bid HTTP/ 1.1\r\n" + _HEAD, 400),
    "lower case version": (b"GET /r/bid http/1.1\r\n" + _HEAD, 400),
    "another protocol": (b"GET /r/bid ICY/1.1\r\n" + _HEAD, 400),
    "HTTPS": (b"GET /r/bid HTTPS/1.1\r\n" + _HEAD, 400),
    "two versions": (b"GET /r/bid HTTP/1.1 HTTP/1.1\r\n" + _HEAD, 400),
    "space after the version": (b"GET /r/bid HTTP/1.1 \r\n" + _HEAD, 400),
    "tab after the version": (b"GET /r/bid HTTP/1.1\t\r\n" + _HEAD, 400),
    "two spaces after the method": (b"GET  /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "two spaces before the version": (b"GET /r/bid  HTTP/1.1\r\n" + _HEAD, 400),
    "tab after the method": (b"GET\t/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "tab before the version": (b"GET /r/bid\tHTTP/1.1\r\n" + _HEAD, 400),
    "vertical tab in the line": (b"GET\x0b/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "form feed in the line": (b"GET /r/bid\x0cHTTP/1.1\r\n" + _HEAD, 400),
    "NUL in the target": (b"GET /r/bid\x00 HTTP/1.1\r\n" + _HEAD, 400),
    "NUL in the method": (b"G\x00ET /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "space in the target": (b"GET /r/bid /evil HTTP/1.1\r\n" + _HEAD, 400),
    "a request in the target": (b"GET /r/bid?x HTTP/1.1 evil HTTP/1.1\r\n" + _HEAD, 400),
    "bare CR in the line": (b"GET /r/bid\r HTTP/1.1\r\n" + _HEAD, 400),
    "bare LF after the line": (b"GET /r/bid HTTP/1.1\n" + _HEAD, 400),
    "CR after the line": (b"GET /r/bid HTTP/1.1\r" + _HEAD, 400),
    "CR CR LF after the line": (b"GET /r/bid HTTP/1.1\r\r\n" + _HEAD, 400),
    "space first": (b" GET /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "no method": (b"/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "empty method": (b" /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "method in quotes": (b'"GET" /r/bid HTTP/1.1\r\n' + _HEAD, 400),
    "method with a colon": (b"GET: /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "method with a slash": (b"GE/T /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "method beyond ASCII": (b"G\xc9T /r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "no target": (b"GET HTTP/1.1\r\n" + _HEAD, 400),
    "empty target": (b"GET  HTTP/1.1\r\n" + _HEAD, 400),
    "target without slash": (b"GET r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "target beyond ASCII": (b"GET /r/bid/\xc3\xa9 HTTP/1.1\r\n" + _HEAD, 400),
    "fragment": (b"GET /r/bid#x HTTP/1.1\r\n" + _HEAD, 400),
    "fragment in the query": (b"GET /r/bid?a#x HTTP/1.1\r\n" + _HEAD, 400),
    "DEL in the target": (b"GET /r/bid\x7f HTTP/1.1\r\n" + _HEAD, 400),
    "authority form": (b"GET gateway.test:80 HTTP/1.1\r\n" + _HEAD, 400),
    "asterisk in GET": (b"GET * HTTP/1.1\r\n" + _HEAD, 400),
    "asterisk and path": (b"OPTIONS */r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "another scheme": (b"GET ftp://gateway.test/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "file scheme": (b"GET file:///r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "no scheme": (b"GET ://gateway.test/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "absolute without host": (b"GET http:///r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "absolute with a user": (b"GET http://a@gateway.test/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "absolute with a bad port": (b"GET http://gateway.test:x/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "absolute with a backslash": (b"GET http:\\\\gateway.test/r/bid HTTP/1.1\r\n" + _HEAD, 400),
    "absolute with a fragment": (b"GET http://gateway.test/r/bid#x HTTP/1.1\r\n" + _HEAD, 400),
    "dot segments": (b"GET /r/bid/../evil HTTP/1.1\r\n" + _HEAD, 400),
    "encoded dot segments": (b"GET /r/bid/%2e%2E/evil HTTP/1.1\r\n" + _HEAD, 400),
    "dot segments with a backslash": (b"GET /r/bid\\..\\evil HTTP/1.1\r\n" + _HEAD, 400),
    "dot segments with an encoded slash": (b"GET /r/bid/..%2fevil HTTP/1.1\r\n" + _HEAD, 400),
    "encoded NUL in the path": (b"GET /r/bid/%00 HTTP/1.1\r\n" + _HEAD, 400),
    "encoded line end in the path": (b"GET /r/bid/a%0d%0aX:b HTTP/1.1\r\n" + _HEAD, 400),
    "dot segments with an encoded parameter": (b"GET /r/bid/..%3bx/evil HTTP/1.1\r\n" + _HEAD, 400),
    "half an encoded byte": (b"GET /r/bid/%4 HTTP/1.1\r\n" + _HEAD, 400),
    "quotes in the path": (b'GET /r/bid/"x" HTTP/1.1\r\n' + _HEAD, 400),
    "braces in the path": (b"GET /r/bid/{x} HTTP/1.1\r\n" + _HEAD, 400),
    "dot segments with a parameter": (b"GET /r/bid/..;x/evil HTTP/1.1\r\n" + _HEAD, 400),
    "CONNECT": (b"CONNECT gateway.test:80 HTTP/1.1\r\n" + _HEAD, 501),
    "CONNECT of a path": (b"CONNECT /r/bid HTTP/1.1\r\n" + _HEAD, 501),
    "TRACE": (b"TRACE /r/bid HTTP/1.1\r\n" + _HEAD, 501),
    "HTTP/2 preface": (_PREFACE, 505),
    "TLS": (_TLS, 400),
    "an answer": (b"HTTP/1.1 200 OK\r\n" + _HEAD, 400),
    "a target that is too long": (b"GET /r/bid/" + b"x" * 9_000 + b" HTTP/1.1\r\n" + _HEAD, 414),
    "a target without end": (b"GET /r/bid/" + b"x" * 70_000, 414),
    "nothing but NUL": (b"\x00" * 64, 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
}

_FIELDS = {
    "space before the colon": b"X-A : b",
    "tab before the colon": b"X-A\t: b",
    "empty name": b": b",
    "no colon": b"X-A",
    "name with a space": b"X A: b",
    "name with a slash": b"X/A: b",
    "name in brackets": b"X[A]: b",
    "name with an at": b"X@A: b",
    "name with a NUL": b"X\x00A: b",
    "name beyond ASCII": b"X-\xc3\xa9: b",
    "name with a high byte": b"X\xffA: b",
    "name with a quote": b'X"A": b',
    "name with a comma": b"X,A: b",
    "name with an equals": b"X=A: b",
    "name with DEL": b"X\x7fA: b",
    "NUL in the value": b"X-A: b\x00c",
    "SOH in the value": b"X-A: b\x01c",
    "ESC in the value": b"X-A: b\x1bc",
    "DEL in the value": b"X-A: b\x7f",
    "bare CR in the value": b"X-A: b\rc",
    "bare LF in the value": b"X-A: b\nc",
    "bare CR at the end": b"X-A: b\r",
    "LF CR": b"X-A: b\n\rX-B: c",
    "folded": b"X-A: b\r\n c",
    "folded by a tab": b"X-A: b\r\n\tc",
    "folded blank": b"X-A: b\r\n \r\nX-B: c",
    "a field by a bare LF": b"X-A: b\nTransfer-Encoding: chunked",
    "vertical tab in the value": b"X-A: \x0b",
    "two hosts": b"Host: other.test",
    "two hosts alike": b"Host: gateway.test",
    "two hosts in other spelling": b"hOST: gateway.test",
    "second host empty": b"Host:",
    "unknown expectation": b"Expect: magic",
}

_HOSTS = {
    "none": b"",
    "with a space": b"Host: gateway test\r\n",
    "with a slash": b"Host: gateway.test/evil\r\n",
    "with a user": b"Host: a@gateway.test\r\n",
    "with a query": b"Host: gateway.test?x\r\n",
    "with a fragment": b"Host: gateway.test#x\r\n",
    "with a comma": b"Host: gateway.test, other.test\r\n",
    "with a bad port": b"Host: gateway.test:x\r\n",
    "with a long port": b"Host: gateway.test:123456\r\n",
    "with a negative port": b"Host: gateway.test:-1\r\n",
    "with two ports": b"Host: gateway.test:80:90\r\n",
    "with a backslash": b"Host: gateway.test\\evil\r\n",
    "in quotes": b'Host: "gateway.test"\r\n',
    "beyond ASCII": b"Host: gat\xe9way.test\r\n",
    "with a NUL": b"Host: gateway.test\x00\r\n",
    "with a URL": b"Host: http://gateway.test\r\n",
    "with an open bracket": b"Host: [::1\r\n",
    "with a zone": b"Host: [fe80::1%25eth0]\r\n",
    "folded": b"Host:\r\n gateway.test\r\n",
    "space before the colon": b"Host : gateway.test\r\n",
    "space first": b" Host: gateway.test\r\n",
}

_GOOD_HOSTS = {
    "with a port": b"Host: gateway.test:8080",
    "an address": b"Host: 127.0.0.1:80",
    "IPv6": b"Host: [::1]:80",
    "empty": b"Host:",
    "upper case": b"HOST: GATEWAY.TEST",
    "no space": b"Host:gateway.test",
}

_DROPPED = {
    "decision": b"Kingmaker-Decision",
    "arm": b"Kingmaker-Arm",
    "route": b"Kingmaker-Route",
    "reason": b"Kingmaker-Reason",
    "anything": b"Kingmaker-X",
    "lower case": b"kingmaker-decision",
    "decision in underscores": b"Kingmaker_Decision",
    "arm in underscores": b"KINGMAKER_ARM",
    "keep-alive": b"Keep-Alive",
    "proxy-connection": b"Proxy-Connection",
    "proxy authorization": b"Proxy-Authorization",
    "proxy authenticate": b"Proxy-Authenticate",
    "TE": b"TE",
    "trailer": b"Trailer",
    "HTTP2 settings": b"HTTP2-Settings",
    "upgrade": b"Upgrade",
    "X-Forwarded-For in underscores": b"X_Forwarded_For",
    "X-Real-IP": b"X-Real-IP",
    "forwarded": b"Forwarded",
}

_NOMINATED = {
    "host": b"Host",
    "length": b"Content-Length",
    "coding": b"Transfer-Encoding",
    "decision": b"Kingmaker-Decision",
    "arm": b"Kingmaker-Arm",
    "timeout": b"Kingmaker-Timeout-Ms",
    "forwarded for": b"X-Forwarded-For",
    "via": b"Via",
    "connection": b"Connection",
    "nothing": b"",
    "commas": b",,,",
    "close in another word": b"closed",
    "many": b", ".join(b"x%d" % number for number in range(500)),
    "beyond ASCII": b"\xff\xfe",
    "quoted": b'"close"',
}

_GOOD_LINES: dict[str, tuple[bytes, Clean]] = {
    "unknown method": (b"BREW /r/bid HTTP/1.1", Clean(method=b"BREW")),
    "lower case method": (b"get /r/bid HTTP/1.1", Clean(method=b"get")),
    "method of signs": (b"!#$%&'*+-.^_`|~ /r/bid HTTP/1.1", Clean(method=b"!#$%&'*+-.^_`|~")),
    "PRI of a path": (b"PRI /r/bid HTTP/1.1", Clean(method=b"PRI")),
    "absolute form": (b"GET http://gateway.test/r/bid HTTP/1.1", Clean()),
    "absolute form, other host": (
        b"GET http://other.test/r/bid HTTP/1.1",
        Clean(has={b"x-forwarded-host": b"other.test"}),
    ),
    "absolute form in upper case": (b"GET HTTP://gateway.test/r/bid HTTP/1.1", Clean()),
    "absolute form, https": (b"GET https://gateway.test/r/bid HTTP/1.1", Clean()),
    "absolute form with a query": (
        b"GET http://gateway.test/r/bid?a=b HTTP/1.1",
        Clean(target=b"/score?a=b"),
    ),
    "query with a URL": (b"GET /r/bid?u=http://x/../y HTTP/1.1", Clean(target=b"/score?u=http://x/../y")),
    "query with question marks": (b"GET /r/bid?a?b?c HTTP/1.1", Clean(target=b"/score?a?b?c")),
    "two slashes": (b"GET /r/bid//x HTTP/1.1", Clean(target=b"/score/x")),
    "three dots": (b"GET /r/bid/.../x HTTP/1.1", Clean(target=b"/score/.../x")),
    "OPTIONS": (b"OPTIONS /r/bid HTTP/1.1", Clean(method=b"OPTIONS")),
}

HEADS = [
    *(Attack(f"line: {name}", raw, Refused(status)) for name, (raw, status) in _LINES.items()),
    *(
        Attack(f"field: {name}", request(line), Refused(417 if line.startswith(b"Expect") else 400))
        for name, line in _FIELDS.items()
    ),
    *(
        Attack(
            f"host: {name}",
            b"GET /r/bid HTTP/1.1\r\n%bX-Nonce: %b\r\n\r\n" % (line, NONCE),
            Refused(),
        )
        for name, line in _HOSTS.items()
    ),
    *(
        Attack(f"host {name}", b"GET /r/bid HTTP/1.1\r\n%b\r\nX-Nonce: %b\r\n\r\n" % (line, NONCE), Clean())
        for name, line in _GOOD_HOSTS.items()
    ),
    *(
        Attack(f"good line: {name}", request(start=start), clean)
        for name, (start, clean) in _GOOD_LINES.items()
    ),
    *(
        Attack(f"dropped: {name}", request(field + b": " + SPOOFED), Clean())
        for name, field in _DROPPED.items()
    ),
    *(
        Attack(
            f"nominated: {name}", post(b"Connection: " + value, b"Content-Length: 1", body=b"x"), Clean(b"x")
        )
        for name, value in _NOMINATED.items()
    ),
    Attack(
        "nominated: a field of the caller", request(b"Connection: X-A", b"X-A: b"), Clean(lacks=(b"x-a",))
    ),
    Attack("nominated: a field before", request(b"X-A: b", b"Connection: x-a"), Clean(lacks=(b"x-a",))),
    Attack(
        "nominated in two fields",
        request(b"X-A: b", b"Connection: x-a", b"Connection: x-b", b"X-B: c"),
        Clean(lacks=(b"x-a", b"x-b")),
    ),
    Attack("nominated: close", request(b"Connection: x, close"), Clean(last=True)),
    Attack(
        "close, then keep-alive", request(b"Connection: close", b"Connection: keep-alive"), Clean(last=True)
    ),
    Attack(
        "keep-alive, then close", request(b"Connection: keep-alive", b"Connection: close"), Clean(last=True)
    ),
    Attack("keep-alive and close", request(b"Connection: keep-alive, close"), Clean(last=True)),
    Attack(
        "force arm, not allowed", request(b"Kingmaker-Force-Arm: old"), Clean(lacks=(b"kingmaker-force-arm",))
    ),
    Attack(
        "two forwarded for",
        request(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-For: 5.6.7.8"),
        Clean(has={b"x-forwarded-for": b"127.0.0.1"}),
    ),
    Attack(
        "upgrade to h2c",
        request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        Clean(lacks=(b"upgrade", b"http2-settings")),
    ),
    Attack("upgrade without connection", request(b"Upgrade: websocket", _KEY), Clean(lacks=(b"upgrade",))),
    Attack(
        "upgrade of a POST",
        post(b"Connection: Upgrade", b"Upgrade: websocket", _KEY, b"Content-Length: 1", body=b"x"),
        Clean(b"x", lacks=(b"upgrade",)),
    ),
    Attack(
        "upgrade to a list",
        request(b"Connection: Upgrade", b"Upgrade: websocket, h2c", _KEY),
        Clean(lacks=(b"upgrade",)),
    ),
    Attack(
        "upgrade in HTTP/1.0",
        request(b"Connection: Upgrade", b"Upgrade: websocket", _KEY, start=b"GET /r/bid HTTP/1.0"),
        Clean(lacks=(b"upgrade",), last=True),
    ),
    Attack(
        "upgrade that the arm ignores",
        request(b"Connection: Upgrade", b"Upgrade: websocket", _KEY, _VERSION, body=EVIL),
        Clean(has={b"upgrade": b"websocket"}, twice=True),
    ),
    Attack("expectation without a body", request(b"Expect: 100-continue"), Clean(lacks=(b"expect",))),
    Attack(
        "expectation in upper case",
        post(b"Expect: 100-CONTINUE", b"Content-Length: 1", body=b"x"),
        Clean(b"x", lacks=(b"expect",)),
    ),
    Attack(
        "expectation with a body",
        post(b"Expect: 100-continue", b"Content-Length: 1", body=b"x"),
        Clean(b"x", lacks=(b"expect",)),
    ),
    Attack(
        "expectation and chunks",
        post(b"Expect: 100-continue", b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n"),
        Clean(b"x", lacks=(b"expect",)),
    ),
    Attack("expectation with a parameter", request(b"Expect: 100-continue;x"), Refused(417)),
    Attack("expectation of two", request(b"Expect: 100-continue, magic"), Refused(417)),
    Attack("too many fields", request(*(b"X-%d: y" % number for number in range(200))), Refused(431)),
    Attack("a field that is too long", request(b"X: " + b"y" * 40_000), Refused(431)),
    Attack("a head without end", request()[:-2] + b"X: " + b"y" * 70_000, Refused(431)),
    Attack("high bytes in a value", request(b"X-A: \x80\xff"), Clean(has={b"x-a": b"\x80\xff"})),
    Attack("tab in a value", request(b"X-A: b\tc"), Clean(has={b"x-a": b"b\tc"})),
    Attack("empty value", request(b"X-A:"), Clean(has={b"x-a": b""})),
    Attack("colons in a value", request(b"X-A: b: c"), Clean(has={b"x-a": b"b: c"})),
    Attack("a huge number of milliseconds", request(b"Kingmaker-Timeout-Ms: " + b"9" * 50), Clean()),
    Attack("negative milliseconds", request(b"Kingmaker-Timeout-Ms: -1"), Clean()),
    Attack("asterisk form", request(start=b"OPTIONS * HTTP/1.1"), Own(200)),
    Attack("no route", request(start=b"GET /nowhere HTTP/1.1"), Own(404)),
    Attack(
        "no route, with an attack as the body",
        post(b"Content-Length: %d" % len(EVIL), body=EVIL).replace(b"/r/bid HTTP", b"/nowhere HTTP", 1),
        Own(404, early=True),
    ),
    Attack("two slashes first", request(start=b"GET //r/bid HTTP/1.1"), Own(404)),
    Attack("the route in upper case", request(start=b"GET /R/BID HTTP/1.1"), Own(404)),
    Attack("more than the route's segment", request(start=b"GET /r/bidx HTTP/1.1"), Own(404)),
]
"""Every attack on a request's head."""
