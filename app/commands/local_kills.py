"""How is a kill switch thrown when nothing answers but the workers of this machine?"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.durations import parse_duration
from app.settings import BadSettings

if TYPE_CHECKING:
    from app.gateway.kills import Kill
    from routing.snapshot import Snapshot

_ALIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done: a route's switch on, for a while or until further notice, or `off`."""

    route: str
    off: bool
    reason: str | None
    lasting: str | None


def kill_here(data_dir: Path, order: Order, as_json: bool) -> None:
    """Carry out an order on the workers of a data folder, and say what is in force there.

    Raises:
        BadSettings: there is no such route, or the folder cannot be read or written.
    """
    from app.gateway.kills import FILE_NAME, one_writer, write_kills  # noqa: PLC0415  # loads what is on disk

    if order.off and order.lasting is not None:
        raise typer.BadParameter("--for says how long a switch is on: it does not go with --off")
    if not order.off and not (order.reason or "").strip():
        raise typer.BadParameter("--local needs a --reason: it is kept with the switch")
    now_ms = time.time_ns() // 1_000_000
    snapshot = _snapshot(data_dir)
    fresh = None if order.off else _kill(order, now_ms)
    try:
        with one_writer(data_dir):
            before = _in_force(data_dir, snapshot, now_ms)
            others = [kill for kill in before if kill.route != order.route]
            if fresh is not None or len(others) == len(before):
                _assert_known(order.route, data_dir, snapshot)
            kills = others if fresh is None else [*others, fresh]
            write_kills(data_dir / FILE_NAME, kills, snapshot.keys[0])
    except OSError as error:
        raise BadSettings(f"data_dir {data_dir} cannot be written: {error}") from error
    _show(order, kills, _workers(data_dir), as_json)


def _kill(order: Order, now_ms: int) -> Kill:
    from app.gateway.kills import Kill  # noqa: PLC0415  # as above

    try:
        lasting = None if order.lasting is None else parse_duration(order.lasting)
    except ValueError as error:
        raise typer.BadParameter(f"--for {error}") from error
    until = None if lasting is None else now_ms + lasting
    return Kill(route=order.route, reason=order.reason or "", since_ms=now_ms, until_ms=until)


def _snapshot(data_dir: Path) -> Snapshot:
    """The snapshot that the workers of a folder route by, or its copy."""
    from app.gateway.snapshots import FILE_NAME, KEPT_SUFFIX, read_snapshot  # noqa: PLC0415  # as above
    from routing.errors import RoutingError  # noqa: PLC0415  # as above

    path = data_dir / FILE_NAME
    try:
        return read_snapshot(path)
    except (OSError, RoutingError) as error:
        try:
            return read_snapshot(path.with_suffix(KEPT_SUFFIX))
        except (OSError, RoutingError):
            raise BadSettings(f"data_dir must hold a snapshot, got {data_dir}: {error}") from error


def _assert_known(route: str, data_dir: Path, snapshot: Snapshot) -> None:
    names = [known.name for known in snapshot.routes]
    if route not in names:
        raise BadSettings(f"route must be one of {', '.join(names) or 'none'} in {data_dir}, got {route}")


def _in_force(data_dir: Path, snapshot: Snapshot, now_ms: int) -> list[Kill]:
    """The switches that are on; those that cannot be verified are dropped, and whoever asks is told."""
    from app.gateway.kills import FILE_NAME, BadKills, read_kills  # noqa: PLC0415  # as above

    try:
        kills = read_kills(data_dir / FILE_NAME, snapshot.keys)
    except BadKills as error:
        typer.echo(f"kingmaker: earlier local kill switches are off from now on: {error}", err=True)
        return []
    return [kill for kill in kills if kill.is_on(now_ms)]


def _workers(data_dir: Path) -> list[str]:
    """The workers that wrote down their figures lately."""
    found = []
    for path in (data_dir / "spools").glob("*.metrics.json"):
        try:
            if time.time() - path.stat().st_mtime < _ALIVE_SECONDS:
                found.append(path.name.removesuffix(".metrics.json"))
        except FileNotFoundError:
            continue  # its worker has ended meanwhile
    return sorted(found)


def _show(order: Order, kills: Sequence[Kill], workers: Sequence[str], as_json: bool) -> None:
    if as_json:
        switches = [
            {
                "route": kill.route,
                "reason": kill.reason,
                "since": _time(kill.since_ms),
                "until": None if kill.until_ms is None else _time(kill.until_ms),
            }
            for kill in kills
        ]
        document = {"route": order.route, "kill_switch": not order.off, "local": switches, "workers": workers}
        typer.echo(json.dumps(document, indent=2))
        return
    what = "off: traffic follows the snapshot" if order.off else "ON: all traffic goes to the champion"
    where = f"workers {', '.join(workers)}" if workers else "no worker runs here now; the next one will obey"
    typer.echo(f"local kill switch of {order.route} {what} ({where})")
    for kill in kills:
        until = "until it is turned off" if kill.until_ms is None else f"until {_time(kill.until_ms)}"
        typer.echo(f"on here: {kill.route}, {until}: {kill.reason}")


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
