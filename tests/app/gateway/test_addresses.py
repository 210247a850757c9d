"""Claims about where connections are made: never where no arm may be, whatever URL or resolver say."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address

import pytest

from app.gateway import resolver as resolvers
from app.gateway.own import is_of_this_machine
from app.gateway.upstream import Failure
from policies.spec import ArmSpec, arm_problems
from routing.addresses import AddressRules, address_rules
from routing.errors import BadSnapshot
from tests.app.gateway.reach import Listener, Watched, answering, call, pool_at

METADATA = "169.254.169.254"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  # what is bound to it here is a counter
NAMES = {
    "metadata.google.internal": [METADATA],
    "metadata": [METADATA],
    "harmless.test": [METADATA],
    "harmless.test.": [METADATA],
    "169.254.169.254.nip.test": [METADATA],
    "mapped.test": ["::ffff:169.254.169.254"],
    "six.test": ["fd00:ec2::254"],
    "azure.test": ["168.63.129.16"],
    "alibaba.test": ["100.100.100.200"],
    "zone.test": ["fe80::1%lo"],
    "nothing.test": [EVERY_ADDRESS],
    "both.test": [METADATA, "fe80::1"],
    "nonsense.test": ["not an address"],
}
SURELY = [
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254:80/",
    "HTTP://169.254.169.254/",
    "http://169.254.169.254./",
    "http://169.254.170.2/v2/credentials",
    "http://169.254.1.1/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xA9FEA9FE/",
    "http://025177524776/",
    "http://0251.0376.0251.0376/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0xa9.254.0251.254/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://00000251.254.169.254/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[0:0:0:0:0:FFFF:A9FE:A9FE]/",
    "http://[::169.254.169.254]/",
    "http://[::ffff:0:169.254.169.254]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:a9fe:a9fe::1]/",
    "http://[2001:0:1:2:0:0:5601:5601]/",
    "http://[2001:db8::5efe:a9fe:a9fe]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[fe80::5efe:a9fe:a9fe]/",
    "http://[fd00:ec2::254]/",
    "http://[fd00:0ec2:0:0:0:0:0:0254]/",
    "http://[fd20:ce::254]/",
    "http://[fd00:c1::a9fe:a9fe]/",
    "http://168.63.129.16/machine",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://0.0.0.0/",
    "http://0/",
    "http://0x0/",
    "http://[::]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://4294967295/",
    "http://[ff02::1]/",
    "http://１６９.254.169.254/",
    "http://169。254。169。254/",
    "http://①⑥⑨.254.169.254/",
    "http://169.254.169.25%34/",
    "http://%31%36%39.254.169.254/",
    "http://169.254.169.254%00/",
    "http://169.254.169.254\\@model/",
    "http://model@169.254.169.254/",
    "http://169.254.169.254\t/",
    "http://169.254\n.169.254/",
    "http:/169.254.169.254/",
    "//169.254.169.254/",
    "ftp://169.254.169.254/",
    "file:///etc/passwd",
    "gopher://169.254.169.254:80/_GET",
    "https://169.254.169.254/",
    "https://[::ffff:a9fe:a9fe]/",
    "http://metadata.google.internal/",
    "http://METADATA.google.internal./",
    "http://metadata/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/containers/json",
    "http+unix://169.254.169.254/",
]
"""What is refused when it is declared, and what stands in a snapshot all the same is not called."""

BY_NAME = [f"http://{name}/" for name in NAMES if not name.startswith("metadata")]
"""What can only be refused once the name has been looked up."""


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """Counts who connects to any address of this machine."""
    listener = await Listener().start(EVERY_ADDRESS)
    yield listener
    await listener.stop()


@pytest.mark.parametrize("url", SURELY)
def test_a_forbidden_url_is_refused_when_it_is_declared(url: str) -> None:
    """Every one of these forms."""
    assert list(arm_problems(ArmSpec("a", url), "arm")) != []


@pytest.mark.parametrize("url", [*SURELY, *BY_NAME])
async def test_a_forbidden_url_is_never_connected_to(url: str) -> None:
    """Also where it was not declared but stands in a snapshot, or where a name leads there."""
    watched = Watched()
    try:
        pool = pool_at(url, ask=answering(NAMES), watched=watched)
    except BadSnapshot:
        return
    assert await call(pool) is Failure.UNREACHABLE
    assert (watched.dialled, pool.open, pool.connects, pool.refusals) == ([], 0, 0, 1)


LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.2",
    "localhost",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::1]",
    "0",
    EVERY_ADDRESS,
    "[::]",
    "ten.test",
    "own.test",
]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize(
    "rules",
    [
        AddressRules(private=False),
        address_rules(True, ["203.0.113.0/24"], []),
        address_rules(True, [], ["::/0", "0.0.0.0/0"]),
    ],
    ids=["no private arms", "allowed elsewhere", "denied"],
)
async def test_a_setting_keeps_arms_off_this_machine(
    listener: Listener, host: str, rules: AddressRules
) -> None:
    """However loopback is written, nobody connects."""
    ask = answering({"ten.test": ["10.0.0.1"], "own.test": ["127.0.0.1", "::1"]})
    watched = Watched()
    pool = pool_at(f"http://{host}:{listener.port}/", ask=ask, rules=rules, watched=watched)
    assert await call(pool) is Failure.UNREACHABLE
    assert (listener.connections, watched.dialled) == (0, [])


async def test_without_settings_arms_may_be_on_this_machine(listener: Listener) -> None:
    """By address and by name; a connection goes to the address that was looked at."""
    for host in ("127.0.0.1", "own.test"):
        watched = Watched()
        ask = answering({"own.test": ["127.0.0.1"]})
        pool = pool_at(f"http://{host}:{listener.port}/", ask=ask, watched=watched)
        assert await call(pool) == 200
        assert watched.dialled == ["127.0.0.1"]
        pool.retire()
    assert listener.connections == 2


@pytest.mark.parametrize(
    "then", [[METADATA], ["::ffff:169.254.169.254"], ["fd00:ec2::254"], ["10.0.0.1"], ["::1"], []]
)
async def test_a_name_that_turns_to_another_address_gains_nothing(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, then: Sequence[str]
) -> None:
    """The first answer is allowed, the next is not: each connection goes to an address that was checked."""
    monkeypatch.setattr(resolvers, "RESOLVED_SECONDS", 0.0)
    monkeypatch.setattr(resolvers, "TRUSTED_SECONDS", 0.0)
    answers: list[Sequence[str]] = [["127.0.0.1"]]

    def rebind(_: str) -> Sequence[str]:
        return answers.pop() if answers else then

    watched = Watched()
    rules = address_rules(True, ["127.0.0.0/8"], [])
    pool = pool_at(f"http://turns.test:{listener.port}/", ask=rebind, rules=rules, watched=watched)
    assert await call(pool) == 200
    pool.close_idle()
    for _ in range(3):
        assert await call(pool) is Failure.UNREACHABLE
    assert (watched.dialled, listener.connections) == (["127.0.0.1"], 1)


async def test_of_several_addresses_only_allowed_ones_are_tried(listener: Listener) -> None:
    """Where a name has both kinds, the forbidden ones are passed over."""
    ask = answering({"mixed.test": [METADATA, "fe80::1", "127.0.0.1", EVERY_ADDRESS]})
    watched = Watched()
    pool = pool_at(f"http://mixed.test:{listener.port}/", ask=ask, watched=watched)
    assert await call(pool) == 200
    assert watched.dialled == ["127.0.0.1"]
    pool.retire()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "own.test"])
@pytest.mark.parametrize("own", ["127.0.0.1", EVERY_ADDRESS, "::"])
async def test_the_gateway_does_not_call_itself(listener: Listener, host: str, own: str) -> None:
    """An arm that is the gateway's own listener is unreachable, also where it listens on every address."""
    ask = answering({"localhost": ["127.0.0.1"], "own.test": ["127.0.0.1"]})
    ours = frozenset({(own, listener.port)})
    pool = pool_at(f"http://{host}:{listener.port}/", ask=ask, own=ours)
    assert await call(pool) is Failure.UNREACHABLE
    assert listener.connections == 0


async def test_another_port_of_this_machine_is_not_the_gateway(listener: Listener) -> None:
    """Nor is the same port of another address."""
    ours = frozenset(
        {(EVERY_ADDRESS, listener.port + 1), ("127.0.0.9", listener.port), ("::1", listener.port)}
    )
    pool = pool_at(f"http://127.0.0.1:{listener.port}/", own=ours)
    assert await call(pool) == 200
    pool.retire()


def test_this_machine_knows_its_own_addresses() -> None:
    """Loopback is; a documentation address is not."""
    assert is_of_this_machine(ip_address("127.0.0.1"))
    assert is_of_this_machine(ip_address("::1"))
    assert not is_of_this_machine(ip_address("192.0.2.1"))
    assert not is_of_this_machine(ip_address("2001:db8::1"))


async def test_redirects_are_not_followed(listener: Listener) -> None:
    """They are an answer like any other."""
    listener.answer = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    watched = Watched()
    pool = pool_at(f"http://127.0.0.1:{listener.port}/", watched=watched)
    assert await call(pool) == 302
    assert watched.dialled == ["127.0.0.1"]
    pool.retire()


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127/8 is this machine on Linux only")
async def test_addresses_take_turns(listener: Listener) -> None:
    """Connections are spread over the addresses of a name."""
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    pool = pool_at(f"http://three.test:{listener.port}/", ask=lambda _: addresses)
    for _ in range(6):
        assert await call(pool) == 200
        pool.close_idle()
    assert sorted(listener.locals) == sorted(addresses * 2)


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127/8 is this machine on Linux only")
async def test_an_address_that_refuses_stands_back() -> None:
    """The next one is tried at once, and for a while first."""
    listener = await Listener().start("127.0.0.2")
    watched = Watched()
    pool = pool_at(
        f"http://two.test:{listener.port}/", ask=lambda _: ["127.0.0.1", "127.0.0.2"], watched=watched
    )
    for _ in range(3):
        assert await call(pool) == 200
        pool.close_idle()
    assert watched.dialled == ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.2"]
    await listener.stop()


async def test_why_an_arm_is_out_of_reach_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """With its name, its address and the reason, and not at every request."""
    pool = pool_at("http://harmless.test:80/", ask=answering(NAMES))
    with caplog.at_level(logging.WARNING, "app.gateway.pool"):
        for _ in range(5):
            await call(pool)
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert (fields["arm"], fields["address"]) == ("old", "harmless.test:80")
    assert "must not be a link-local or metadata address, got 169.254.169.254" in fields["error"]
    assert pool.refusals == 5


async def test_a_unix_socket_is_called(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The arm gets the path behind the socket's, and a Host that names no file."""
    path = tmp_path_factory.mktemp("s") / "model 1.sock"
    listener = await Listener().start_at(str(path))
    quoted = str(path).replace("/", "%2F").replace(" ", "%20")
    pool = pool_at(f"http+unix://{quoted}/score?v=1")
    assert [await call(pool) for _ in range(2)] == [200, 200]
    assert listener.heads == [b"GET /score?v=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"] * 2
    assert (listener.connections, pool.connects, pool.address) == (1, 1, str(path))
    pool.retire()
    await listener.stop()
    path.unlink(missing_ok=True)
    assert await call(pool) is Failure.UNREACHABLE


@pytest.mark.parametrize("rules", [AddressRules(private=False), address_rules(True, ["127.0.0.0/8"], [])])
async def test_a_unix_socket_is_refused_by_setting(
    tmp_path_factory: pytest.TempPathFactory, rules: AddressRules
) -> None:
    """It is private, and in no network."""
    path = tmp_path_factory.mktemp("s") / "model.sock"
    listener = await Listener().start_at(str(path))
    pool = pool_at(f"http+unix://{str(path).replace('/', '%2F')}/", rules=rules)
    assert await call(pool) is Failure.UNREACHABLE
    await asyncio.sleep(0)
    assert listener.connections == 0
    await listener.stop()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://model/", "must have scheme http, https or http+unix, got 'ftp' in 'ftp://model/'"),
        ("http+unix://run/score", "must name a Unix socket by its whole path of at most 107 bytes"),
        ("http+unix:///run/model.sock", "must name a Unix socket by its whole path of at most 107 bytes"),
        ("http+unix://%2Frun%2Fdocker.sock/", "must not be a container engine's own socket"),
        ("http://model.-x/", "must be a host name or an IP address, in ASCII and not encoded"),
        ("http://127.0.0.%31/", "must be a host name or an IP address, in ASCII and not encoded"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, message: str) -> None:
    """In words that name the bound and the value."""
    (problem,) = arm_problems(ArmSpec("a", url), "arm")
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    "url", ["https://model/", "https://10.0.0.1:8443/x", "http+unix://%2Frun%2Fmodel.sock/x"]
)
def test_arms_may_be_reached_over_tls_and_unix_sockets(url: str) -> None:
    """As well as over plain HTTP."""
    assert list(arm_problems(ArmSpec("a", url), "arm")) == []
