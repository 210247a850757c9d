"""How flags are asked for in tests, one or all, and of how many routes."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from app.gateway.kills import with_kill_switches
from app.gateway.ofrep import FLAGS_PATH
from app.gateway.snapshots import routing_of
from routing.snapshot import Snapshot
from routing.types import Match, Route
from tests.app.gateway.stage import KEY, Message, Stage


async def flag(stage: Stage, route: str = "bid", context: object = None, **headers: str) -> Message:
    """Evaluates one flag."""
    body = b"{}" if context is None else json.dumps({"context": context}).encode()
    return await stage.ask("POST", f"{FLAGS_PATH}/{route}", body, **headers)


async def flags(stage: Stage, context: object = None, tag: str | None = None, **headers: str) -> Message:
    """Evaluates all flags, unless the answer with this tag is still as good."""
    known = {} if tag is None else {"If_None_Match": tag}
    body = b"{}" if context is None else json.dumps({"context": context}).encode()
    return await stage.ask("POST", FLAGS_PATH, body, **known, **headers)


def publish(stage: Stage, count: int, challenger_bp: int = 5_000, **changes: Any) -> Snapshot:
    """Adopts a snapshot with so many routes, `bid-0` and so on."""
    pattern = stage.route(challenger_bp, **changes)
    stage.version += 1
    snapshot = Snapshot(
        version=stage.version,
        created_at_ms=0,
        routes=tuple(route_of(pattern, number) for number in range(count)),
        keys=(KEY,),
    )
    stage.worker.adopt(routing_of(snapshot, {}))
    return snapshot


def route_of(pattern: Route, number: int) -> Route:
    """Another route like this one."""
    name = f"bid-{number}"
    match = Match(path_prefix=f"/r/{name}")
    return msgspec.structs.replace(pattern, id=number + 1, name=name, match=match, salt=name)


def tag_of(answer: Message) -> str:
    """The answer's entity tag."""
    assert answer.status in (200, 304)
    tag = answer["etag"]
    assert tag is not None
    return tag


def told_of(answer: Message) -> dict[str, str]:
    """The value of each flag of an answer."""
    return {flag["key"]: flag["value"] for flag in json.loads(answer.body)["flags"]}


def kill(stage: Stage, route: str) -> None:
    """Sets a kill switch as a worker does by itself, which leaves the snapshot's version as it is."""
    routing = stage.worker.routing
    assert routing is not None
    stage.worker.adopt(routing_of(with_kill_switches(routing.table.snapshot, frozenset({route})), {}))
