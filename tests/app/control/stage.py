"""What control-plane tests stand on: the real application over a database file, and what it left there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import select

from app.clock import now_ms
from app.control.context import Context
from app.control.main import create_app
from app.db import rollouts, signing
from app.db.keys import KeyRole, create_key
from app.db.routes import load_route
from app.db.session import Database
from app.db.tables import metadata
from app.db.timeline import Entry, Kind
from app.gateway.snapshots import FILE_NAME, read_snapshot
from app.publisher import Publisher
from policies.types import Phase
from routing.snapshot import Snapshot
from routing.types import Route

LOOPBACK = "http://127.0.0.1:8081"
Json = dict[str, Any]


class Stage:
    """A control plane on SQLite, called in process. `folder` is its data folder.

    An application that is passed in is put over this database: routes are costly to build.
    """

    def __init__(
        self, folder: Path, database: Database, app: FastAPI | None = None, keyless: bool = True
    ) -> None:
        self.folder = folder
        self.database = database
        self.context = Context(database, Publisher(database, folder), keyless)
        self.app = app or create_app(self.context)
        self.app.state.context = self.context
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=LOOPBACK)

    async def ask(
        self, method: str, path: str, body: object = None, key: str | None = None, **query: Any
    ) -> httpx.Response:
        """One call under /v1; an exception that leaves the application fails the test."""
        return await self.http.request(
            method,
            f"/v1{path}",
            json=body,
            params={name: str(value) for name, value in query.items()},
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
        )

    async def put(self, body: Json | None = None, **query: Any) -> httpx.Response:
        """Declares a route, by default `document()`."""
        body = document() if body is None else body
        return await self.ask("PUT", f"/routes/{body['route']}", body, **query)

    async def post(self, action: str, route: str = "ads", **body: Any) -> httpx.Response:
        """A rollout action, with a reason."""
        return await self.ask("POST", f"/routes/{route}/rollout/{action}", {"reason": "because", **body})

    async def read(self, path: str, **query: Any) -> Any:
        """What a read answers, which must succeed."""
        answer = await self.ask("GET", path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def timeline(self, route: str = "ads") -> list[Json]:
        """The route's timeline, oldest first."""
        rows: list[Json] = (await self.read(f"/routes/{route}/timeline", limit=1000))["timeline"]
        return rows[::-1]

    async def weights(self, route: str = "ads") -> dict[str, int]:
        """The route's split."""
        weights: dict[str, int] = (await self.read(f"/routes/{route}/rollout"))["weights"]
        return weights

    async def make_key(self, role: str, name: str | None = None) -> str:
        """A key's secret."""
        async with self.database.transaction() as connection:
            return (await create_key(connection, name or role, KeyRole(role), now_ms()))[1]

    async def wait_for_approval(self, arm: str = "new") -> None:
        """Brings a challenger to where the policy does: a step is earned and waits for a person."""
        async with self.database.transaction() as connection:
            route = await load_route(connection, "ads")
            trial = route.rollout.trial(arm)
            assert trial is not None
            waiting = replace(route.rollout, trials=(replace(trial, phase=Phase.AWAITING_APPROVAL),))
            entry = Entry(Kind.AWAITING_APPROVAL, "policy", "earned", arm)
            await rollouts.save(connection, route, waiting, entry, now_ms())
        await self.context.publish()

    def snapshot(self) -> Snapshot:
        """The file that gateways watch."""
        return read_snapshot(self.folder / FILE_NAME)

    def published(self, route: str = "ads") -> Route:
        """A route as gateways have it."""
        return next(found for found in self.snapshot().routes if found.name == route)

    async def state(self) -> dict[str, object]:
        """Everything that is stored: each row of each table, and the snapshot file to the byte."""
        path = self.folder / FILE_NAME
        stored: dict[str, object] = {"file": path.read_bytes() if path.exists() else None}
        async with self.database.read() as connection:
            for table in metadata.sorted_tables:
                rows = (await connection.execute(select(table))).all()
                stored[table.name] = [tuple(row) for row in rows]
        return stored


@asynccontextmanager
async def staged(
    folder: Path, tables: bytes, app: FastAPI | None = None, keyless: bool = True
) -> AsyncIterator[Stage]:
    """A control plane over a new database with these tables, which has been published, as at a start."""
    path = folder / "kingmaker.db"
    path.write_bytes(tables)
    database = Database(f"sqlite:///{path}")
    async with database.transaction() as connection:
        await signing.ensure_key(connection, now_ms())
    stage = Stage(folder, database, app, keyless)
    try:
        await stage.context.publish()
        yield stage
    finally:
        await stage.http.aclose()
        await database.close()


def document(route: str = "ads", **changes: object) -> Json:
    """A route with the champion `old` and the challenger `new` on trial with a tenth of the traffic."""
    return {
        "route": route,
        "arms": [arm("old", role="champion"), arm("new")],
        "split": {"weights": {"old": 9_000, "new": 1_000}},
        "metrics": [{"name": "conversion", "kind": "binary"}],
        "policy": {"ramp": [5_000, 10_000]},
        **changes,
    }


def arm(name: str, **changes: object) -> Json:
    """An arm as a file declares it."""
    return {"name": name, "url": f"http://127.0.0.1:9000/{name}", **changes}


def faults(answer: httpx.Response) -> dict[str, str]:
    """The fields that a problem document names, with its messages; checks that it is one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    found: dict[str, str] = {}
    for fault in problem.get("errors", ()):
        found[fault["field"]] = "; ".join(filter(None, (found.get(fault["field"]), fault["message"])))
    return found
