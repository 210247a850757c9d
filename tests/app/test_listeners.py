"""Claims about the sockets that we listen on."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from app.listeners import beside, divided, is_loopback, listen, url_of
from app.settings import BadSettings


@pytest.fixture
def taken() -> socket.socket:
    """A socket that listens already; whoever asks for it closes it."""
    return socket.create_server(("127.0.0.1", 0))


async def test_port_0_is_any_free_port() -> None:
    """Two listeners get two ports, and their URLs say which."""
    with await listen("127.0.0.1", 0) as first, await listen("127.0.0.1", 0) as second:
        assert url_of(first) != url_of(second)
        _, writer = await asyncio.open_connection(*first.getsockname())
        writer.close()
        await writer.wait_closed()


async def test_a_port_that_becomes_free_is_taken(taken: socket.socket) -> None:
    """After a crash, workers of the process before need a moment: a port in use is waited for."""
    port = taken.getsockname()[1]
    asyncio.get_running_loop().call_later(0.3, taken.close)
    with await listen("127.0.0.1", port) as listener:
        assert listener.getsockname()[1] == port


async def test_a_port_that_stays_in_use_is_named(taken: socket.socket) -> None:
    """Patience has a bound, and then the message has host, port and reason."""
    with taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(BadSettings, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await listen("127.0.0.1", port, patience_seconds=0.3)
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_refused_at_once(host: str) -> None:
    """Waiting would not help: no patience for what is not a port in use."""
    async with asyncio.timeout(60):
        with pytest.raises(BadSettings, match=f"cannot listen on {host}:0: "):
            await listen(host, 0, patience_seconds=600)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104  # a name, not an address to listen on
        ("::", False),
        ("", False),
        ("192.168.1.2", False),
        ("localhost.example.org", False),
    ],
)
def test_only_loopback_is_loopback(host: str, loopback: bool) -> None:
    """A host that other machines may reach, or that cannot be told, is not."""
    assert is_loopback(host) is loopback


async def test_a_listener_on_every_address_is_reached_on_loopback() -> None:
    """The URL that is printed can be opened here."""
    with await listen("0.0.0.0", 0) as listener:  # noqa: S104  # as an operator asks for it
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_divided_port_is_nobody_elses() -> None:
    """Its sockets share it among themselves; whoever else asks for it is refused as for any port in use."""
    with await listen("127.0.0.1", 0) as listener:
        sockets = divided(listener, 3)
        assert len({other.getsockname() for other in sockets}) == 1
        with pytest.raises(BadSettings, match="Address already in use"):
            await listen("127.0.0.1", listener.getsockname()[1], patience_seconds=0)
        for other in set(sockets) - {listener}:
            other.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux divides connections among sockets")
async def test_a_socket_that_nobody_listens_on_gets_no_connection() -> None:
    """Connections go to those that listen, and to it too once it does."""
    with await listen("127.0.0.1", 0) as listener:
        divided(listener, 2)[1].close()
        with beside(listener) as other:
            callers = [socket.create_connection(listener.getsockname()) for _ in range(40)]
            assert _accepted(listener) == 40
            other.listen(100)
            callers += [socket.create_connection(listener.getsockname()) for _ in range(40)]
            here, there = _accepted(listener), _accepted(other)
            assert here + there == 40
            assert there > 0
            for caller in callers:
                caller.close()


async def test_one_socket_needs_no_division() -> None:
    """Of one listener nothing is changed."""
    with await listen("127.0.0.1", 0) as listener:
        assert divided(listener, 1) == [listener]


def _accepted(listener: socket.socket) -> int:
    """How many have been waiting here."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
