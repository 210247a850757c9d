"""Claims about taking new snapshots: whole, at once, and never a broken one."""

from __future__ import annotations

import asyncio
from pathlib import Path, PosixPath
from typing import ClassVar

import msgspec
import pytest

from app.gateway.pool import is_forbidden
from app.gateway.snapshots import SnapshotFile, routing_of
from app.gateway.targets import Target
from routing.snapshot import Snapshot
from routing.types import Arm, ArmHeader, Match, Role, Route
from tests.app.gateway.stage import KEY, OK, Message, Stage, shares, until


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
        write(path, msgspec.json.encode(snapshot_of(arm_at("http://a"), version)))
        routing = file.poll()
        assert routing is not None
        assert routing.version == version
        assert file.poll() is None
    assert file.failures == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"version": 1}',
        msgspec.json.encode(snapshot_of(arm_at("https://a"))),
        msgspec.json.encode(snapshot_of(arm_at("http://a:99999"))),
        msgspec.json.encode(snapshot_of(arm_at("http://a/\r\nX: y"))),
        msgspec.json.encode(snapshot_of(arm_at("http://a", ArmHeader(name="X", value="a\r\nb")))),
    ],
)
def test_a_broken_snapshot_is_counted_and_left(tmp_path: Path, content: bytes) -> None:
    """Whatever is wrong with it, nothing is raised, and the next good one is taken."""
    path = tmp_path / "snapshot.json"
    file = SnapshotFile(path, {})
    write(path, content)
    assert file.poll() is None
    assert file.failures == 1
    write(path, msgspec.json.encode(snapshot_of(arm_at("http://a"))))
    assert file.poll() is not None


class Busy(PosixPath):
    """A file that cannot be read the first time: too many are open."""

    refusals: ClassVar = [OSError("too many open files")]

    def read_bytes(self) -> bytes:
        if self.refusals:
            raise self.refusals.pop()
        return super().read_bytes()


def test_a_snapshot_that_cannot_be_read_now_is_read_later(tmp_path: Path) -> None:
    """A fault of the system is not taken for one of the file."""
    write(tmp_path / "snapshot.json", msgspec.json.encode(snapshot_of(arm_at("http://a"))))
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


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("::1", False),
    ],
)
def test_link_local_addresses_are_forbidden(address: str, forbidden: bool) -> None:
    """Private and loopback addresses are allowed; link-local and metadata addresses never."""
    assert is_forbidden(address) is forbidden


async def test_a_swap_while_serving_harms_no_exchange(stage: Stage) -> None:
    """An exchange under way ends with the snapshot it began with; the next one has the new one."""
    go = asyncio.Event()

    async def slow(_: Message, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    stage.champion.script = slow
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
