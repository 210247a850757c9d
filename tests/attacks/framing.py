"""Where does a request end? Attacks on Content-Length, Transfer-Encoding, chunks, trailers and pipelines."""

from __future__ import annotations

from tests.attacks.case import EVIL, NONCE, Attack, Clean, Refused, Unfinished, chunked, chunks, post, request

TE = b"Transfer-Encoding: chunked"
_BOTH = chunks(b"x")
_NINES = b"9" * 30

_CODINGS = {
    "xchunked": b"Transfer-Encoding: xchunked",
    "chunkedx": b"Transfer-Encoding: chunkedx",
    "identity": b"Transfer-Encoding: identity",
    "gzip": b"Transfer-Encoding: gzip",
    "gzip and chunked": b"Transfer-Encoding: gzip, chunked",
    "chunked and gzip": b"Transfer-Encoding: chunked, gzip",
    "chunked and identity": b"Transfer-Encoding: chunked, identity",
    "identity and chunked": b"Transfer-Encoding: identity, chunked",
    "chunked and chunked": b"Transfer-Encoding: chunked, chunked",
    "chunked and nothing": b"Transfer-Encoding: chunked,",
    "nothing and chunked": b"Transfer-Encoding: ,chunked",
    "quoted": b'Transfer-Encoding: "chunked"',
    "in single quotes": b"Transfer-Encoding: 'chunked'",
    "with a parameter": b"Transfer-Encoding: chunked;q=1",
    "with an empty parameter": b"Transfer-Encoding: chunked;",
    "empty": b"Transfer-Encoding:",
    "space inside": b"Transfer-Encoding: chun ked",
    "vertical tab before": b"Transfer-Encoding: \x0bchunked",
    "vertical tab after": b"Transfer-Encoding: chunked\x0b",
    "form feed before": b"Transfer-Encoding:\x0cchunked",
    "NUL before": b"Transfer-Encoding: \x00chunked",
    "NUL after": b"Transfer-Encoding: chunked\x00",
    "backspace": b"Transfer-Encoding: chunkedd\x08",
    "no-break space": b"Transfer-Encoding: \xa0chunked",
    "next line": b"Transfer-Encoding: chunked\x85",
    "byte 255": b"Transfer-Encoding: \xffchunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "folded by a tab": b"Transfer-Encoding:\r\n\tchunked",
    "folded to a second coding": b"Transfer-Encoding: chunked\r\n , identity",
    "bare line feed before": b"Transfer-Encoding:\nchunked",
    "bare carriage return before": b"Transfer-Encoding:\rchunked",
    "bare carriage return after": b"Transfer-Encoding: chunked\r",
    "after a bare line feed": b"X: y\nTransfer-Encoding: chunked",
    "after a bare carriage return": b"X: y\rTransfer-Encoding: chunked",
    "twice": TE + b"\r\n" + TE,
    "twice, first another": b"Transfer-Encoding: x\r\n" + TE,
    "twice, then another": TE + b"\r\nTransfer-Encoding: x",
    "twice, then identity": TE + b"\r\nTransfer-Encoding: identity",
    "twice, first empty": b"Transfer-Encoding:\r\n" + TE,
    "space before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "NUL before the colon": b"Transfer-Encoding\x00: chunked",
    "space before the name": b" Transfer-Encoding: chunked",
    "tab before the name": b"\tTransfer-Encoding: chunked",
    "two colons": b"Transfer-Encoding:: chunked",
    "no colon": b"Transfer-Encoding chunked",
}

_HARMLESS_CODINGS = {
    "upper case": b"TRANSFER-ENCODING: CHUNKED",
    "mixed case": b"tRaNsFeR-eNcOdInG: cHuNkEd",
    "no space": b"Transfer-Encoding:chunked",
    "tab": b"Transfer-Encoding:\tchunked",
    "spaces around": b"Transfer-Encoding:   chunked \t ",
}

_LENGTHS = {
    "positive sign": b"Content-Length: +1",
    "negative": b"Content-Length: -1",
    "minus zero": b"Content-Length: -0",
    "hexadecimal": b"Content-Length: 0x1",
    "exponent": b"Content-Length: 1e0",
    "fraction": b"Content-Length: 1.0",
    "underscore": b"Content-Length: 1_0",
    "empty": b"Content-Length:",
    "blank": b"Content-Length:   ",
    "space inside": b"Content-Length: 1 1",
    "list of two alike": b"Content-Length: 1, 1",
    "list of two": b"Content-Length: 1, 2",
    "list without end": b"Content-Length: 1,",
    "twice alike": b"Content-Length: 1\r\nContent-Length: 1",
    "twice": b"Content-Length: 1\r\nContent-Length: 0",
    "twice in other spelling": b"Content-Length: 1\r\ncontent-LENGTH: 2",
    "quoted": b'Content-Length: "1"',
    "in brackets": b"Content-Length: [1]",
    "a word": b"Content-Length: one",
    "full width digit": b"Content-Length: \xef\xbc\x91",
    "superscript": b"Content-Length: \xb9",
    "Arabic digit": b"Content-Length: \xd9\xa1",
    "vertical tab": b"Content-Length: \x0b1",
    "NUL after": b"Content-Length: 1\x00",
    "no-break space": b"Content-Length: \xa01",
    "folded": b"Content-Length:\r\n 1",
    "folded to more digits": b"Content-Length: 1\r\n 0",
    "bare carriage return": b"Content-Length: 1\r",
    "space before the colon": b"Content-Length : 1",
    "parameter": b"Content-Length: 1;a=b",
    "over 64 bits": b"Content-Length: 18446744073709551617",
    "over 63 bits": b"Content-Length: 9223372036854775809",
    "endless digits": b"Content-Length: " + _NINES,
    "endless zeros": b"Content-Length: " + b"0" * 40 + b"1",
}

_BAD_CHUNKS = {
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "negative size": b"-1\r\nx\r\n0\r\n\r\n",
    "signed size": b"+1\r\nx\r\n0\r\n\r\n",
    "size with 0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "size with underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "size is no number": b"g\r\nx\r\n0\r\n\r\n",
    "space before the size": b" 1\r\nx\r\n0\r\n\r\n",
    "tab before the size": b"\t1\r\nx\r\n0\r\n\r\n",
    "space after the size": b"1 \r\nx\r\n0\r\n\r\n",
    "space inside the size": b"1 0\r\nx\r\n0\r\n\r\n",
    "vertical tab after the size": b"1\x0b\r\nx\r\n0\r\n\r\n",
    "NUL after the size": b"1\x00\r\nx\r\n0\r\n\r\n",
    "NUL before the size": b"\x001\r\nx\r\n0\r\n\r\n",
    "full width size": b"\xef\xbc\x91\r\nx\r\n0\r\n\r\n",
    "over 64 bits": b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "16 digits": b"ffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "leading zeros without end": b"0" * 64 + b"1\r\nx\r\n0\r\n\r\n",
    "size line ends in LF": b"1\nx\r\n0\r\n\r\n",
    "size line ends in CR": b"1\rx\r\n0\r\n\r\n",
    "size line ends in CR CR LF": b"1\r\r\nx\r\n0\r\n\r\n",
    "size line ends in LF CR": b"1\n\rx\r\n0\r\n\r\n",
    "chunk ends in LF": b"1\r\nx\n0\r\n\r\n",
    "chunk ends in CR": b"1\r\nx\r0\r\n\r\n",
    "chunk without end": b"1\r\nx0\r\n\r\n",
    "chunk ends in other bytes": b"1\r\nxXX0\r\n\r\n",
    "chunk shorter than its size": b"5\r\nx\r\n0\r\n\r\n",
    "chunk longer than its size": b"1\r\nxyz\r\n0\r\n\r\n",
    "extension with LF": b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "extension with CR": b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "extension with NUL": b"1;a=\x00\r\nx\r\n0\r\n\r\n",
    "extension without name": b"1;\r\nx\r\n0\r\n\r\n",
    "extension with an open quote": b'1;a="b\r\nx\r\n0\r\n\r\n',
    "extension with a quoted CRLF": b'1;a="\r\nx\r\n0\r\n\r\n"\r\n0\r\n\r\n',
    "extension with a quoted LF": b'1;a="\n"\r\nx\r\n0\r\n\r\n',
    "extension with two values": b"1;a=b=c\r\nx\r\n0\r\n\r\n",
    "extension without semicolon": b"1 a=b\r\nx\r\n0\r\n\r\n",
    "extension without end": b"1;a=" + b"b" * 5_000 + b"\r\nx\r\n0\r\n\r\n",
    "last size ends in LF": b"1\r\nx\r\n0\n\r\n",
    "end is LF": b"1\r\nx\r\n0\r\n\n",
    "end is CR and something": b"1\r\nx\r\n0\r\n\rX",
    "last chunk of minus zero": b"1\r\nx\r\n-0\r\n\r\n",
    "last chunk with 0x": b"1\r\nx\r\n0x0\r\n\r\n",
    "an attack after a broken chunk": b"1\r\nxy\r\n0\r\n\r\n" + EVIL,
}

_GOOD_CHUNKS: dict[str, tuple[bytes, bytes]] = {
    "upper case size": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "leading zeros": (b"0001\r\nx\r\n0\r\n\r\n", b"x"),
    "many zeros at the end": (b"1\r\nx\r\n00000\r\n\r\n", b"x"),
    "extension": (b"1;a=b\r\nx\r\n0\r\n\r\n", b"x"),
    "extension without value": (b"1;a\r\nx\r\n0;b\r\n\r\n", b"x"),
    "quoted extension": (b'1;a="b;c"\r\nx\r\n0\r\n\r\n', b"x"),
    "quoted pair": (b'1;a="b\\"c"\r\nx\r\n0\r\n\r\n', b"x"),
    "body that looks like a chunk": (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "body that looks like a request": (b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVIL), EVIL), EVIL),
    "empty body": (b"0\r\n\r\n", b""),
}

_TRAILERS = {
    "length": b"Content-Length: 50",
    "coding": TE,
    "host": b"Host: other.test",
    "nonce": b"X-Nonce: again",
    "our own": b"Kingmaker-Force-Arm: old",
    "connection": b"Connection: X-Nonce",
    "authorization": b"Authorization: Basic x",
}

_BAD_TRAILERS = {
    "bare LF": b"X: y\n\r\n",
    "bare CR": b"X: y\rZ: a\r\n",
    "folded": b"X: y\r\n z\r\n",
    "no colon": b"X\r\n",
    "space before the colon": b"X : y\r\n",
    "NUL": b"X: \x00\r\n",
    "empty name": b": y\r\n",
    "request line": b"GET /r/bid/evil HTTP/1.1\r\n",
}

FRAMING = [
    *(
        Attack(f"coding {name}, with a length", post(b"Content-Length: 4", line, body=_BOTH), Refused())
        for name, line in _CODINGS.items()
    ),
    *(
        Attack(f"coding {name}, without a length", post(line, body=_BOTH), Refused())
        for name, line in _CODINGS.items()
    ),
    *(
        Attack(f"coding in {name}", post(line, body=_BOTH), Clean(b"x"))
        for name, line in _HARMLESS_CODINGS.items()
    ),
    *(Attack(f"length {name}", post(line, body=b"x"), Refused()) for name, line in _LENGTHS.items()),
    *(Attack(f"chunks: {name}", chunked(body), Refused()) for name, body in _BAD_CHUNKS.items()),
    *(
        Attack(f"second chunk: {name}", chunked(b"1\r\na\r\n" + body), Refused())
        for name, body in _BAD_CHUNKS.items()
        if name != "no size"
    ),
    *(Attack(f"chunks with {name}", chunked(raw), Clean(body)) for name, (raw, body) in _GOOD_CHUNKS.items()),
    *(
        Attack(f"trailer {name}", chunked(b"1\r\nx\r\n0\r\n%b\r\n\r\n" % line), Clean(b"x"))
        for name, line in _TRAILERS.items()
    ),
    *(
        Attack(f"bad trailer: {name}", chunked(b"1\r\nx\r\n0\r\n%b\r\n" % line), Refused())
        for name, line in _BAD_TRAILERS.items()
    ),
    Attack("endless trailer", chunked(b"1\r\nx\r\n0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n"), Refused(431)),
    Attack("endless trailers", chunked(b"0\r\n" + b"X: y\r\n" * 3_000 + b"\r\n"), Refused(431)),
    Attack("CL.TE", post(b"Content-Length: 6", TE, body=b"0\r\n\r\nG"), Refused()),
    Attack("TE.CL", post(TE, b"Content-Length: 4", body=b"5c\r\n" + EVIL + b"0\r\n\r\n"), Refused()),
    Attack("CL.TE with an attack", post(b"Content-Length: 5", TE, body=b"0\r\n\r\n" + EVIL), Refused()),
    Attack("CL.0", post(b"Content-Length: 0", TE, body=b"0\r\n\r\n" + EVIL), Refused()),
    Attack("coding and bad length", post(TE, b"Content-Length: x", body=_BOTH), Refused()),
    Attack(
        "two lengths and coding", post(TE, b"Content-Length: 1\r\nContent-Length: 1", body=_BOTH), Refused()
    ),
    Attack("coding in HTTP/1.0", post(TE, body=_BOTH, version=b"1.0"), Refused()),
    Attack(
        "coding and length in HTTP/1.0", post(TE, b"Content-Length: 4", body=_BOTH, version=b"1.0"), Refused()
    ),
    Attack("coding in GET", request(TE, body=_BOTH), Clean(b"x")),
    Attack("length in GET", request(b"Content-Length: 1", body=b"x"), Clean(b"x")),
    Attack(
        "an attack as the body of GET", request(b"Content-Length: %d" % len(EVIL), body=EVIL), Clean(EVIL)
    ),
    Attack("an attack as the body", post(b"Content-Length: %d" % len(EVIL), body=EVIL), Clean(EVIL)),
    Attack("a length with leading zeros", post(b"Content-Length: 0001", body=b"x"), Clean(b"x")),
    Attack("length zero, then a request", post(b"Content-Length: 0", body=EVIL), Clean(twice=True)),
    Attack("no framing, then a request", post(body=EVIL), Clean(twice=True)),
    Attack("GET, then a request", request(body=EVIL), Clean(twice=True)),
    Attack("HEAD, then a request", request(start=b"HEAD /r/bid HTTP/1.1", body=EVIL), Clean(twice=True)),
    Attack("chunks, then a request", chunked(chunks(b"x") + EVIL), Clean(b"x", twice=True)),
    Attack("a length, then a request", post(b"Content-Length: 1", body=b"x" + EVIL), Clean(b"x", twice=True)),
    Attack(
        "a length one too short", post(b"Content-Length: 1", body=b"xy\r\n\r\n"), Clean(b"x", spoilt=True)
    ),
    Attack("a length too long", post(b"Content-Length: 10000", body=b"x"), Unfinished()),
    Attack("a length far too long", post(b"Content-Length: 999999999999999999", body=b"x"), Refused(413)),
    Attack("a chunk far too long", chunked(b"fffffffffffffff\r\nx"), Unfinished()),
    Attack("a chunk without its last part", chunked(b"1\r\nx\r\n"), Unfinished()),
    Attack("close, then a request", request(b"Connection: close", body=EVIL), Clean(last=True)),
    Attack("HTTP/1.0, then a request", request(start=b"GET /r/bid HTTP/1.0", body=EVIL), Clean(last=True)),
    Attack("an empty line first", b"\r\n" + request(), Clean()),
    Attack("two empty lines first", b"\r\n\r\n" + request(), Clean()),
    Attack("three empty lines first", b"\r\n\r\n\r\n" + request(), Refused()),
    Attack("an empty line after a body", post(b"Content-Length: 1", body=b"x\r\n"), Clean(b"x")),
    Attack("a bare LF first", b"\n" + request(), Refused()),
    Attack("a bare CR first", b"\r" + request(), Refused()),
    Attack(
        "length in an underscore",
        post(b"Content_Length: 5", body=EVIL),
        Clean(twice=True, lacks=(b"content_length",)),
    ),
    Attack(
        "coding in an underscore",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r"),
        Clean(b"0\r\n\r", lacks=(b"transfer_encoding", b"transfer-encoding")),
    ),
    Attack("a nonce in the body", post(b"Content-Length: 16", body=NONCE), Clean(NONCE)),
]
"""Every attack on a request's framing."""
