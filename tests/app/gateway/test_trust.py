"""Claims about forwarding headers: proxies of ours are believed, others are not; loops end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.requests import FORWARDING
from app.gateway.settings import GatewaySettings
from app.gateway.traceparent import context_of, is_traceparent
from app.gateway.trust import Trust

OURS = ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7")
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def trusting(*networks: str, traces: str | None = None) -> Trust:
    """One that believes proxies in these networks, and is `kingmaker-here` in Via."""
    return Trust(GatewaySettings(trusted_proxies=networks, traces=traces), "kingmaker-here")


def sent(
    received: dict[bytes, bytes],
    *,
    trusted: bool = True,
    host: bytes = b"gateway.test",
    peer: bytes = b"10.0.0.9",
    trust: Trust | None = None,
    http10: bool = False,
) -> dict[str, str]:
    """What an arm gets, by lower-case name."""
    lines = (trust or trusting(*OURS)).forwarding_lines(received, host, peer, trusted, http10)
    return dict(_fields(lines))


def _fields(lines: bytes) -> Iterator[tuple[str, str]]:
    assert lines.endswith(b"\r\n")
    for line in lines[:-2].decode("latin-1").split("\r\n"):
        name, _, value = line.partition(": ")
        yield name.lower(), value


OWN = {
    "x-forwarded-for": "10.0.0.9",
    "x-forwarded-host": "gateway.test",
    "x-forwarded-proto": "http",
    "via": "1.1 kingmaker-here",
}


def test_an_arm_learns_where_a_plain_request_came_from() -> None:
    """Without any forwarding field it gets the caller's address, the host that was asked, scheme and Via."""
    assert sent({}, trusted=False) == sent({}) == OWN


def test_a_request_without_a_host_has_no_forwarded_host() -> None:
    """HTTP/1.0 needs no Host; then there is none to forward, and Via says 1.0."""
    fields = sent({}, host=b"", http10=True)
    assert "x-forwarded-host" not in fields
    assert fields["via"] == "1.0 kingmaker-here"


def test_a_stranger_is_not_believed() -> None:
    """Of what somebody else sends, only Via is kept: the rest is replaced by what we know, or left out."""
    claims = {name: b"forged" for name in FORWARDING if name not in (b"via", b"baggage")}
    assert sent(claims, trusted=False) == OWN


def test_a_proxy_of_ours_is_believed() -> None:
    """Its chains are kept and added to; its host, scheme, port, prefix and address of the caller are kept."""
    fields = sent(
        {
            b"forwarded": b"for=203.0.113.5;proto=https",
            b"x-forwarded-for": b"203.0.113.5",
            b"x-forwarded-host": b"shop.example",
            b"x-forwarded-proto": b"https",
            b"x-forwarded-port": b"443",
            b"x-forwarded-prefix": b"/models",
            b"x-real-ip": b"203.0.113.5",
            b"via": b"1.1 edge",
        }
    )
    assert fields == {
        "forwarded": "for=203.0.113.5;proto=https, for=10.0.0.9;host=gateway.test;proto=http",
        "x-forwarded-for": "203.0.113.5, 10.0.0.9",
        "x-forwarded-host": "shop.example",
        "x-forwarded-proto": "https",
        "x-forwarded-port": "443",
        "x-forwarded-prefix": "/models",
        "x-real-ip": "203.0.113.5",
        "via": "1.1 edge, 1.1 kingmaker-here",
    }


@pytest.mark.parametrize(
    ("peer", "host", "element"),
    [
        (b"2001:db8::1", b"a.test", 'for="[2001:db8::1]";host=a.test;proto=http'),
        (b"10.0.0.9", b"a.test:8080", 'for=10.0.0.9;host="a.test:8080";proto=http'),
        (b"10.0.0.9", b"[2001:db8::2]", 'for=10.0.0.9;host="[2001:db8::2]";proto=http'),
        (b"10.0.0.9", b"", "for=10.0.0.9;proto=http"),
    ],
)
def test_forwarded_is_quoted_where_rfc_7239_says_so(peer: bytes, host: bytes, element: str) -> None:
    """IPv6 addresses stand in brackets and quotes, hosts that are no token in quotes."""
    fields = sent({b"forwarded": b"for=_hidden"}, peer=peer, host=host)
    assert fields["forwarded"] == f"for=_hidden, {element}"


@pytest.mark.parametrize("trusted", [True, False])
def test_via_grows_whoever_sent_it(trusted: bool) -> None:
    """It is not replaced: a loop through two gateways could not be seen by either."""
    assert sent({b"via": b"1.1 other"}, trusted=trusted)["via"] == "1.1 other, 1.1 kingmaker-here"


@pytest.mark.parametrize(
    ("via", "loop"),
    [
        (b"1.1 kingmaker-here", True),
        (b"1.1 edge, 1.0 kingmaker-here (comment), HTTP/2 other", True),
        (b"1.1 kingmaker-there", False),
        (b"1.1 kingmaker-here2", False),
        (b"1.1 edge (kingmaker-here)", False),
        (b"", False),
    ],
)
def test_a_request_that_was_here_before_is_a_loop(via: bytes, loop: bool) -> None:
    """Via says so by this very process' pseudonym, not by that of another gateway."""
    assert trusting().is_loop({b"via": via}) is loop


def test_what_an_arm_gets_is_a_loop_when_it_comes_back() -> None:
    """A request sent to ourselves is known again, and by no other gateway process."""
    here, there = Trust(GatewaySettings()), Trust(GatewaySettings())
    fields = sent({}, trust=here)
    received = {b"via": fields["via"].encode()}
    assert here.is_loop(received)
    assert not there.is_loop(received)
    assert not here.is_loop({})


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.0.0.1", True),
        ("2001:db8:ffff::1", True),
        ("2001:db9::1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_trust_is_by_network(peer: str, trusted: bool) -> None:
    """A peer is trusted if its address, in whichever form, lies in a network that was named."""
    assert trusting(*OURS).is_trusted(peer) is trusted


def test_nobody_is_trusted_by_default() -> None:
    """Not even a peer on this machine."""
    assert not trusting().is_trusted("127.0.0.1")


@pytest.mark.parametrize(
    ("received", "client"),
    [
        ({}, "10.0.0.9"),
        ({b"x-forwarded-for": b"203.0.113.5"}, "203.0.113.5"),
        ({b"x-forwarded-for": b"1.2.3.4, 203.0.113.5, 10.1.1.1"}, "203.0.113.5"),
        ({b"x-forwarded-for": b"10.3.3.3, 10.1.1.1"}, "10.3.3.3"),
        ({b"x-forwarded-for": b"1.2.3.4, unknown, 10.1.1.1"}, "10.1.1.1"),
        ({b"x-forwarded-for": b"1.2.3.4, <script>"}, "10.0.0.9"),
        ({b"x-forwarded-for": b"203.0.113.5:4711"}, "203.0.113.5"),
        ({b"x-forwarded-for": b"[2001:db9::5]:4711, ::ffff:10.1.1.1"}, "2001:db9::5"),
        ({b"x-forwarded-for": b"203.0.113.5", b"forwarded": b"for=1.2.3.4"}, "203.0.113.5"),
        (
            {b"forwarded": b'for=1.2.3.4, host=a;For="[2001:db9::5]:80";by=10.1.1.1, for=10.1.1.1'},
            "2001:db9::5",
        ),
        ({b"forwarded": b'host="x;for=6.6.6.6";for=203.0.113.5'}, "203.0.113.5"),
        ({b"forwarded": b'ext="a,for=6.6.6.6";for=203.0.113.5'}, "203.0.113.5"),
        ({b"forwarded": b"for=_hidden, for=10.1.1.1"}, "10.1.1.1"),
        ({b"forwarded": b'for="6.6.6.6, for=203.0.113.5'}, "10.0.0.9"),
        ({b"forwarded": b"proto=https"}, "10.0.0.9"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_ours(received: dict[bytes, bytes], client: str) -> None:
    """Read from the right, past proxies of ours, and never further than what one of them has noted."""
    assert trusting(*OURS).client_address(received, "10.0.0.9", trusted=True) == client


def test_a_stranger_is_the_client_whatever_it_says() -> None:
    """What it sends of other addresses counts for nothing."""
    received = {b"x-forwarded-for": b"203.0.113.5"}
    assert trusting(*OURS).client_address(received, "198.51.100.1", trusted=False) == "198.51.100.1"


@given(st.binary(max_size=300), st.sampled_from([b"x-forwarded-for", b"forwarded"]))
def test_the_client_is_always_an_address(chain: bytes, name: bytes) -> None:
    """Whatever stands in a chain, what is logged is an address that an address parser accepts."""
    client = trusting(*OURS).client_address({name: chain}, "10.0.0.9", trusted=True)
    assert Trust(GatewaySettings(trusted_proxies=("::/0", "0.0.0.0/0"))).is_trusted(client)


GOOD_PARENTS = [
    PARENT,
    PARENT[:-2] + b"00",
    PARENT[:-2] + b"ff",
    b"01" + PARENT[2:],
    b"cc" + PARENT[2:] + b"-what-comes-later",
]
BAD_PARENTS = [
    b"",
    b"00",
    PARENT.upper(),
    PARENT + b"-more",
    PARENT[:-1],
    b"ff" + PARENT[2:],
    b"01" + PARENT[2:] + b".more",
    b"00-" + b"0" * 32 + PARENT[35:],
    PARENT[:36] + b"0" * 16 + b"-01",
    PARENT + b", " + PARENT,
    b" " + PARENT,
    PARENT.replace(b"-", b"_"),
]


@pytest.mark.parametrize("value", GOOD_PARENTS)
@pytest.mark.parametrize("trusted", [True, False])
def test_trace_headers_pass_while_we_take_no_part(value: bytes, trusted: bool) -> None:
    """Whoever sends them: traceparent, tracestate and baggage reach the arm as they came."""
    received = {b"traceparent": value, b"tracestate": b"a=1,b@c=2", b"baggage": b"tenant=7"}
    fields = sent(received, trusted=trusted)
    assert fields["traceparent"] == value.decode()
    assert fields["tracestate"] == "a=1,b@c=2"
    assert fields["baggage"] == "tenant=7"


@pytest.mark.parametrize("value", BAD_PARENTS)
def test_a_malformed_traceparent_is_dropped_with_its_tracestate(value: bytes) -> None:
    """An arm never gets one, nor the state that came with it."""
    fields = sent({b"traceparent": value, b"tracestate": b"a=1"})
    assert not {"traceparent", "tracestate"} & set(fields)
    assert context_of({b"traceparent": value}) is None
    assert not is_traceparent(value)


@pytest.mark.parametrize(
    "state",
    [
        *(b"", b"a", b"A=1", b"a=1,a=2", b"a=" + b"x" * 257, b"a=1=2"),
        b",".join(b"k%d=1" % n for n in range(33)),
    ],
)
def test_a_bad_tracestate_does_not_spoil_its_traceparent(state: bytes) -> None:
    """It is dropped alone."""
    fields = sent({b"traceparent": PARENT, b"tracestate": state})
    assert fields["traceparent"] == PARENT.decode()
    assert "tracestate" not in fields


def test_a_tracestate_may_have_thirty_two_members() -> None:
    """As many as the recommendation allows, with blanks around them and empty ones between."""
    state = b" , ".join(b"k%d=%d" % (n, n) for n in range(32)) + b",,"
    assert sent({b"traceparent": PARENT, b"tracestate": state})["tracestate"] == state.decode()


def test_trace_headers_are_written_elsewhere_where_we_take_part() -> None:
    """With traces on they are not passed: an arm would see two. Baggage passes for proxies of ours alone."""
    trust = trusting(*OURS, traces="http://collector:4318")
    received = {b"traceparent": PARENT, b"tracestate": b"a=1", b"baggage": b"tenant=7"}
    assert sent(received, trust=trust) == {**OWN, "baggage": "tenant=7"}
    assert sent(received, trust=trust, trusted=False) == OWN


def test_overlong_baggage_is_dropped() -> None:
    """More than the 8,192 bytes that everybody must be able to pass on are nobody's need."""
    assert "baggage" in sent({b"baggage": b"a=" + b"x" * 8_190})
    assert "baggage" not in sent({b"baggage": b"a=" + b"x" * 8_191})
