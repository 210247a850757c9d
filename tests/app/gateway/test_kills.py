"""Claims about kill switches that are set on this machine alone: signed, lasting, and never misread."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from app.gateway.kills import (
    BadKills,
    Kill,
    KillFile,
    one_writer,
    read_kills,
    with_kill_switches,
    write_kills,
)
from app.gateway.snapshots import routing_of
from routing.claims import SigningKey
from routing.snapshot import Snapshot
from routing.types import Arm, Match, Reason, Role, Route
from tests.app.gateway.stage import KEY, Stage, claims_of, shares

NOW_MS = 1_000_000
OTHER_KEY = SigningKey(id=KEY.id, secret=b"another secret of 32 bytes------")


def _snapshot(*keys: SigningKey, names: tuple[str, ...] = ("bid", "rank")) -> Snapshot:
    arms = (
        Arm(id=1, name="old", url="http://a", role=Role.CHAMPION),
        Arm(id=2, name="new", url="http://b", role=Role.CHALLENGER),
    )
    routes = tuple(
        Route(
            id=number,
            name=name,
            match=Match(path_prefix=f"/r/{name}"),
            arms=arms,
            shares=shares(5_000),
            salt="s",
            epoch=1,
        )
        for number, name in enumerate(names, 1)
    )
    return Snapshot(version=1, created_at_ms=0, routes=routes, keys=keys or (KEY,))


def _kill(route: str = "bid", until_ms: int | None = None) -> Kill:
    return Kill(route=route, reason="it hurts", since_ms=NOW_MS, until_ms=until_ms)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the switches of a data folder are."""
    return tmp_path / "kills.json"


def test_a_signed_switch_is_on_until_it_is_turned_off(path: Path) -> None:
    """Nothing is in force without a file; a switch that was written is, until a file without it is there."""
    file, snapshot = KillFile(path), _snapshot()
    assert file.in_force(snapshot, NOW_MS) == set()
    write_kills(path, [_kill("bid"), _kill("rank")], KEY)
    assert file.in_force(snapshot, NOW_MS) == {"bid", "rank"}
    write_kills(path, [_kill("rank")], KEY)
    assert file.in_force(snapshot, NOW_MS) == {"rank"}
    write_kills(path, [], KEY)
    assert file.in_force(snapshot, NOW_MS) == set()
    assert file.refusals == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_switch_ends_with_its_time(path: Path) -> None:
    """At that moment, without another command."""
    write_kills(path, [_kill("bid", NOW_MS + 10), _kill("rank")], KEY)
    file, snapshot = KillFile(path), _snapshot()
    assert file.in_force(snapshot, NOW_MS + 9) == {"bid", "rank"}
    assert file.in_force(snapshot, NOW_MS + 10) == {"rank"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b'{"key":1,"mac":"","kills":[]}',
        b'{"kills":[{"route":"bid","reason":"x","since_ms":0}]}',
        b'{"key":1,"mac":"\xc3\xa4","kills":[{"route":"bid","reason":"x","since_ms":0}]}',
    ],
)
def test_what_is_not_signed_has_no_effect(path: Path, content: bytes) -> None:
    """It neither turns a switch on nor one off, and is counted once."""
    file, snapshot = KillFile(path), _snapshot()
    path.write_bytes(content)
    assert [file.in_force(snapshot, NOW_MS) for _ in range(2)] == [set(), set()]
    assert file.refusals == 1
    write_kills(path, [_kill()], KEY)
    assert file.in_force(snapshot, NOW_MS) == {"bid"}
    path.write_bytes(content)
    assert file.in_force(snapshot, NOW_MS) == {"bid"}
    assert file.refusals == 2


def test_every_byte_is_signed(path: Path) -> None:
    """A file in which any bit was flipped is refused."""
    write_kills(path, [_kill(until_ms=NOW_MS + 1)], KEY)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadKills):
            read_kills(path, [KEY])


def test_a_key_of_another_installation_has_no_effect(path: Path) -> None:
    """Though it has the same id; once the snapshot has that key, the same file is honoured."""
    write_kills(path, [_kill()], OTHER_KEY)
    file = KillFile(path)
    assert file.in_force(_snapshot(), NOW_MS) == set()
    assert file.refusals == 1
    assert file.in_force(_snapshot(OTHER_KEY), NOW_MS) == {"bid"}


def test_an_older_key_still_counts(path: Path) -> None:
    """When keys are changed, a switch signed with the one before holds as long as the snapshot knows that."""
    write_kills(path, [_kill()], KEY)
    fresh = SigningKey(id=KEY.id + 1, secret=OTHER_KEY.secret)
    assert KillFile(path).in_force(_snapshot(fresh, KEY), NOW_MS) == {"bid"}


def test_a_file_that_vanishes_turns_nothing_off(path: Path) -> None:
    """Turning off is a signed command as well."""
    write_kills(path, [_kill()], KEY)
    file, snapshot = KillFile(path), _snapshot()
    file.in_force(snapshot, NOW_MS)
    path.unlink()
    assert file.in_force(snapshot, NOW_MS) == {"bid"}


def test_a_route_that_does_not_exist_is_counted_and_ignored(path: Path) -> None:
    """Once; and when a snapshot brings the route, its switch is on."""
    write_kills(path, [_kill("bid"), _kill("later")], KEY)
    file = KillFile(path)
    assert [file.in_force(_snapshot(), NOW_MS) for _ in range(2)] == [{"bid"}, {"bid"}]
    assert file.refusals == 1
    assert file.in_force(_snapshot(names=("bid", "later")), NOW_MS) == {"bid", "later"}


def test_only_the_switch_of_the_route_is_changed() -> None:
    """All else in the snapshot stays as it was published."""
    snapshot = _snapshot()
    killed = with_kill_switches(snapshot, frozenset({"rank"}))
    assert [route.kill_switch for route in killed.routes] == [False, True]
    assert msgspec.structs.replace(killed, routes=snapshot.routes) == snapshot
    assert msgspec.structs.replace(killed.routes[1], kill_switch=False) == snapshot.routes[1]


def test_writers_take_turns(path: Path) -> None:
    """Many who each add a switch at the same time lose none."""

    def add(number: int) -> None:
        with one_writer(path.parent):
            kills = read_kills(path, [KEY])
            write_kills(path, [*kills, _kill(f"r{number}")], KEY)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_kills(path, [KEY])) == 20


async def test_a_killed_route_is_answered_by_its_champion(stage: Stage) -> None:
    """With the reason in the answer and in the token, though the whole split is the challenger's."""
    stage.route(10_000)
    assert stage.worker.routing is not None
    snapshot = stage.worker.routing.table.snapshot
    stage.worker.adopt(routing_of(with_kill_switches(snapshot, frozenset({"bid"})), {}))
    answers = [await stage.ask() for _ in range(5)]
    assert {answer["kingmaker-arm"] for answer in answers} == {"old"}
    assert {answer["kingmaker-reason"] for answer in answers} == {"KILL_SWITCH"}
    assert {claims_of(answer).reason for answer in answers} == {Reason.KILL_SWITCH}
