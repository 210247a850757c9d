"""Claims about taking new snapshots: whole, at once, and never a broken one."""

from __future__ import annotations

import asyncio
from pathlib import Path, PosixPath
from tempfile import TemporaryDirectory
from typing import ClassVar

import msgspec
import pytest

from app.gateway.snapshots import SnapshotFile, read_snapshot, routing_of, write_snapshot
from app.gateway.targets import Target
from routing.errors import BadSnapshot
from routing.snapshot import Snapshot
from routing.types import Arm, ArmHeader, Match, Role, Route
from tests.app.gateway.stage import KEY, OK, ArmServer, Stage, shares, until


def snapshot_of(arm: Arm, version: int = 1) -> Snapshot:
    """A snapshot with one route and one arm."""
    route = Route(
        id=1, name="bid", match=Match(path_prefix="/r/bid"), arms=(arm,), shares=shares(0), salt="s", epoch=1
    )
    return Snapshot(version=version, created_at_ms=0, routes=(route,), keys=(KEY,))


def arm_at(url: str, *headers: ArmHeader) -> Arm:
    """A champion."""
    return Arm(id=1, name="old", url=url, role=Role.CHAMPION, headers=headers)


def write(path: Path, content: bytes) -> None:
    """Replaces a file at once, as the control plane does."""
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(path)


def test_a_snapshot_is_taken_when_it_changes(tmp_path: Path) -> None:
    """A missing file is nothing; an unchanged one is nothing; a new one is taken."""
    path = tmp_path / "snapshot.json"
    file = SnapshotFile(path, {})
    assert file.poll() is None
    for version in (1, 2):
        write_snapshot(path, snapshot_of(arm_at("http://a"), version))
        routing = file.poll()
        assert routing is not None
        assert routing.version == version
        assert file.poll() is None
    assert file.failures == 0


def enveloped(snapshot: Snapshot) -> bytes:
    """A snapshot as it lies on disk."""
    with TemporaryDirectory() as folder:
        write_snapshot(Path(folder) / "snapshot.json", snapshot)
        return (Path(folder) / "snapshot.json").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"version": 1}',
        msgspec.json.encode(snapshot_of(arm_at("http://a"))),
        b'{"blake2b": "", "snapshot": {"version": 1}}',
        enveloped(snapshot_of(arm_at("ftp://a"))),
        enveloped(snapshot_of(arm_at("http://a:99999"))),
        enveloped(snapshot_of(arm_at("http://a/\r\nX: y"))),
        enveloped(snapshot_of(arm_at("http://a", ArmHeader(name="X", value="a\r\nb")))),
    ],
)
def test_a_broken_snapshot_is_counted_and_left(tmp_path: Path, content: bytes) -> None:
    """Whatever is wrong with it, nothing is raised, and the next good one is taken."""
    path = tmp_path / "snapshot.json"
    file = SnapshotFile(path, {})
    write(path, content)
    assert file.poll() is None
    assert (file.failures, file.adopted_at) == (1, None)
    write_snapshot(path, snapshot_of(arm_at("http://a")))
    assert file.poll() is not None
    assert file.adopted_at is not None


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_torn_snapshot_is_never_used(tmp_path: Path, sixteenth: int) -> None:
    """Wherever the file ends too early, it is refused, and so is one whose end is zeros as after a crash."""
    whole = enveloped(snapshot_of(arm_at("http://a")))
    part = whole[: len(whole) * sixteenth // 16]
    file = SnapshotFile(tmp_path / "snapshot.json", {})
    for count, content in enumerate((part, part + bytes(len(whole) - len(part))), 1):
        write(tmp_path / "snapshot.json", content)
        assert file.poll() is None
        assert file.failures == count


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Whichever bit of the file it is, in a name, a number or the digest itself."""
    path = tmp_path / "snapshot.json"
    whole = enveloped(snapshot_of(arm_at("http://a")))
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(BadSnapshot):
                read_snapshot(path)


def test_the_last_usable_snapshot_stands_in_at_a_start(tmp_path: Path) -> None:
    """A worker that starts over a damaged or missing file routes by the copy, until a whole file comes."""
    path = tmp_path / "snapshot.json"
    write_snapshot(path, snapshot_of(arm_at("http://a"), 7))
    before = SnapshotFile(path, {})
    assert before.poll() is not None
    before.keep()
    for damage in (b"{", None):
        path.unlink() if damage is None else write(path, damage)
        after = SnapshotFile(path, {})
        routing = after.poll()
        assert routing is not None
        assert routing.version == 7
        assert after.poll() is None
    write_snapshot(path, snapshot_of(arm_at("http://a"), 8))
    routing = after.poll()
    assert routing is not None
    assert routing.version == 8


def test_a_damaged_file_does_not_replace_what_is_in_use(tmp_path: Path) -> None:
    """A worker that has a newer snapshot than the copy does not go back to it."""
    path = tmp_path / "snapshot.json"
    file = SnapshotFile(path, {})
    write_snapshot(path, snapshot_of(arm_at("http://a"), 7))
    assert file.poll() is not None
    file.keep()
    write_snapshot(path, snapshot_of(arm_at("http://a"), 8))
    assert file.poll() is not None
    write(path, b"{")
    assert file.poll() is None


def test_a_copy_that_cannot_be_kept_is_no_fault(tmp_path: Path) -> None:
    """Routing goes on without it."""
    file = SnapshotFile(tmp_path / "snapshot.json", {})
    write_snapshot(tmp_path / "snapshot.json", snapshot_of(arm_at("http://a")))
    (tmp_path / "snapshot.kept.json").mkdir()
    assert file.poll() is not None
    file.keep()
    assert list(tmp_path.glob("*.draft")) == []


class Busy(PosixPath):
    """A file that cannot be read the first time: too many are open."""

    refusals: ClassVar = [OSError("too many open files")]

    def read_bytes(self) -> bytes:
        if self.refusals:
            raise self.refusals.pop()
        return super().read_bytes()


def test_a_snapshot_that_cannot_be_read_now_is_read_later(tmp_path: Path) -> None:
    """A fault of the system is not taken for one of the file."""
    write_snapshot(tmp_path / "snapshot.json", snapshot_of(arm_at("http://a")))
    file = SnapshotFile(Busy(tmp_path / "snapshot.json"), {})
    assert file.poll() is None
    assert file.poll() is not None
    assert file.failures == 1


def test_secrets_of_an_arm_come_from_the_environment() -> None:
    """A header by reference gets its variable's value; without the variable it is left out."""
    arm = arm_at("http://a", ArmHeader(name="Authorization", env="TOKEN"))
    present = routing_of(snapshot_of(arm), {"TOKEN": "Bearer x"}).targets[1]
    absent = routing_of(snapshot_of(arm), {}).targets[1]
    assert present.lines == b"Authorization: Bearer x\r\n"
    assert (absent.lines, absent.overrides) == (b"", frozenset())


def test_a_header_of_two_lines_is_left_out() -> None:
    """A value from the environment injects no header, and keeps no snapshot from other arms."""
    arm = arm_at("http://a", ArmHeader(name="Authorization", env="TOKEN"))
    for value in ("x\r\nY: z", "", " \n"):
        (target,) = routing_of(snapshot_of(arm), {"TOKEN": value}).targets.values()
        assert target.lines == b""


def test_a_secret_read_from_a_file_may_end_in_a_newline() -> None:
    """It is sent without."""
    arm = arm_at("http://a", ArmHeader(name="Authorization", env="TOKEN"))
    (target,) = routing_of(snapshot_of(arm), {"TOKEN": "secret\n"}).targets.values()
    assert target.lines == b"Authorization: secret\r\n"


@pytest.mark.parametrize(
    ("url", "rest", "query", "expected"),
    [
        ("http://a", b"", b"", b"/"),
        ("http://a", b"/x", b"", b"/x"),
        ("http://a/score", b"", b"q=1", b"/score?q=1"),
        ("http://a/score/", b"/x", b"", b"/score/x"),
        ("http://a/score?k=1", b"/x", b"q=1", b"/score/x?k=1&q=1"),
    ],
)
def test_paths_and_queries_are_joined(url: str, rest: bytes, query: bytes, expected: bytes) -> None:
    """The arm's path first, then the rest; the arm's query first, then the caller's."""
    target: Target = routing_of(snapshot_of(arm_at(url)), {}).targets[1]
    assert target.request_target(rest, query) == expected


async def test_a_swap_while_serving_harms_no_exchange(stage: Stage) -> None:
    """An exchange under way ends with the snapshot it began with; the next one has the new one."""
    go = asyncio.Event()
    stage.champion.script = ArmServer.say(OK, once=go)
    stage.route(0)
    asking = asyncio.create_task(stage.ask())
    await until(lambda: len(stage.champion.seen) == 1)
    stage.route(10_000)
    go.set()
    before, after = await asking, await stage.ask()
    assert (before["kingmaker-arm"], after["kingmaker-arm"]) == ("old", "new")
    assert stage.spool.events[0].decision.snapshot + 1 == stage.spool.events[1].decision.snapshot


async def test_connections_outlive_a_swap_unless_their_arm_does_not(stage: Stage) -> None:
    """The pool of an arm that stays is kept; that of an arm that has gone is closed."""
    stage.route(10_000)
    await stage.ask()
    route = stage.route(10_000)
    await stage.ask()
    assert stage.challenger.connections == 1
    stage.route(0, arms=route.arms[:1])
    await until(lambda: not stage.challenger.open)
