"""Claims about looking names up: beside the loop, once at a time, and no name keeps another waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from threading import Event

import pytest

from app.gateway import resolver as resolvers
from app.gateway.resolver import Resolver, ask_system
from tests.app.gateway.stage import until


class Names:
    """A resolver of which some names hang, and others fail or answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = Event()
        self.known: dict[str, Sequence[str]] = {}

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("hang") and host not in self.known:
            self.release.wait(30)
        if host not in self.known:
            raise OSError(f"{host} is not known")
        return self.known[host]


@pytest.fixture
def names() -> Iterator[Names]:
    """Lets every thread end after the test."""
    names = Names()
    yield names
    names.release.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is looked up again at once."""
    monkeypatch.setattr(resolvers, "RESOLVED_SECONDS", 0.0)


async def test_a_name_that_hangs_is_looked_up_once_at_a_time(names: Names) -> None:
    """However many wait for it, it holds one thread, and others are answered meanwhile."""
    resolver = Resolver(asyncio.get_running_loop(), names)
    names.known["other"] = ["10.0.0.1"]
    waiting = [asyncio.create_task(resolver.addresses("hang", 20)) for _ in range(50)]
    await until(lambda: names.asked == ["hang"])
    assert await resolver.addresses("other", 20) == ("10.0.0.1",)
    assert (names.asked, resolver.busy) == (["hang", "other"], 1)
    names.known["hang"] = ["10.0.0.2"]
    names.release.set()
    assert set(await asyncio.gather(*waiting)) == {("10.0.0.2",)}
    assert resolver.busy == 0


async def test_patience_has_an_end(names: Names) -> None:
    """Who has waited for as long as a connection may take is told so, and who comes later is told at once."""
    resolver = Resolver(asyncio.get_running_loop(), names)
    for patience in (0.05, 0.05, 0.0):
        with pytest.raises(OSError, match="hang has no address, or none was found in time"):
            await resolver.addresses("hang", patience)
    assert names.asked == ["hang"]


async def test_threads_are_bounded(names: Names) -> None:
    """When all hang, a new name is told so at once, and what was known before still serves."""
    resolver = Resolver(asyncio.get_running_loop(), names, threads=2)
    names.known["known"] = ["10.0.0.1"]
    await resolver.addresses("known", 20)
    for host in ("hang-1", "hang-2", "third"):
        with pytest.raises(OSError, match="has no address"):
            await resolver.addresses(host, 0.01)
    assert names.asked == ["known", "hang-1", "hang-2"]
    assert await resolver.addresses("known", 20) == ("10.0.0.1",)


@pytest.mark.usefixtures("impatient")
async def test_what_was_known_serves_while_it_is_looked_up_again(names: Names) -> None:
    """A resolver that hangs or fails later on takes no address away; one that answers replaces them."""
    resolver = Resolver(asyncio.get_running_loop(), names)
    names.known["hang"] = ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
    assert await resolver.addresses("hang", 20) == ("10.0.0.1", "10.0.0.2")
    del names.known["hang"]
    for _ in range(3):
        assert await resolver.addresses("hang", 20) == ("10.0.0.1", "10.0.0.2")
    names.release.set()
    await until(lambda: resolver.busy == 0)
    names.known["hang"] = ["10.0.0.3"]
    await resolver.addresses("hang", 20)
    await until(lambda: resolver.busy == 0)
    assert await resolver.addresses("hang", 20) == ("10.0.0.3",)
    await until(lambda: resolver.busy == 0)


@pytest.mark.usefixtures("impatient")
async def test_what_is_long_out_of_date_is_waited_for(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection after a long silence is made to where the name is now, if that can be found out."""
    monkeypatch.setattr(resolvers, "TRUSTED_SECONDS", 0.0)
    resolver = Resolver(asyncio.get_running_loop(), names)
    for address in ("10.0.0.1", "10.0.0.2"):
        names.known["moves"] = [address]
        assert await resolver.addresses("moves", 20) == (address,)
    del names.known["moves"]
    assert await resolver.addresses("moves", 20) == ("10.0.0.2",)


async def test_addresses_are_not_looked_up(names: Names) -> None:
    """An IP address is its own; other numbers are names to us."""
    resolver = Resolver(asyncio.get_running_loop(), names)
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert await resolver.addresses(address, 20) == (address,)
    with pytest.raises(OSError, match="has no address"):
        await resolver.addresses("127.1", 20)
    assert names.asked == ["127.1"]


@pytest.mark.parametrize("host", ["no such name", "a" * 300, "münchen.example", "a\0b"])
async def test_names_that_cannot_be_asked_for_are_not_known(host: str) -> None:
    """Whatever the system's resolver says of them."""
    resolver = Resolver(asyncio.get_running_loop())
    with pytest.raises(OSError, match="has no address"):
        await resolver.addresses(host, 20)


def test_the_system_knows_itself() -> None:
    """Its resolver answers with addresses."""
    assert set(ask_system("localhost")) <= {"127.0.0.1", "::1"}
    assert ask_system("127.1") == ["127.0.0.1"]


async def test_names_are_forgotten(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms that come and go leave no names behind without end; one that is being looked up is kept."""
    monkeypatch.setattr(resolvers, "_MOST_NAMES", 10)
    resolver = Resolver(asyncio.get_running_loop(), names)
    with pytest.raises(OSError, match="has no address"):
        await resolver.addresses("hang", 0.01)
    for number in range(30):
        names.known[f"arm-{number}"] = ["10.0.0.1"]
        await resolver.addresses(f"arm-{number}", 20)
    assert len(resolver._names) <= 10
    assert "hang" in resolver._names
