"""The users: they ask about pages, and report what each decision brought once its truth is known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any

import httpx

from app.demo.errors import DemoFailed
from app.demo.ledger import Decision, settle
from app.demo.pages import Page
from app.demo.route import METRICS, ROUTE, UNIT_HEADER

USERS = 3_000
REQUESTS_PER_SECOND = 250
_CALLERS = 8
_REPORT_SECONDS = 0.2
_TIMEOUT_SECONDS = 10.0
_FALLBACK = "FALLBACK"


@dataclass(slots=True)
class Tally:
    """What callers have seen. `errors`: answers that were none, of which there must be none."""

    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    outcomes: int = 0
    refused: int = 0
    served: dict[str, int] = field(default_factory=dict)

    def note(self, arm: str, reason: str) -> None:
        """One request was answered."""
        self.served[arm] = self.served.get(arm, 0) + 1
        self.fallbacks += reason == _FALLBACK


class Traffic:
    """Sticky users before a gateway. Mutable state: `tally`, and the outcomes that are not yet reported."""

    def __init__(self, gateway: str, pages: Iterator[Page], seed: int) -> None:
        self.tally = Tally()
        self._gateway = gateway
        self._pages = pages
        self._draws = Random(seed)  # noqa: S311 - which user asks is no secret
        self._due: list[dict[str, Any]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.create_task(self._run(), name="traffic")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def check(self) -> None:
        """See that users still ask.

        Raises:
            DemoFailed: they do not.
        """
        if self._task is None or self._task.done():
            cause = self._task.exception() if self._task is not None else None
            raise DemoFailed(f"the traffic ended by itself: {cause!r}") from cause

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=_CALLERS + 1)
        client = httpx.AsyncClient(
            base_url=self._gateway,
            limits=limits,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,  # no proxy of the user's lies between this machine and itself
        )
        async with client, asyncio.TaskGroup() as group:
            for number in range(_CALLERS):
                group.create_task(self._call(client, number))
            group.create_task(self._report(client))

    async def _call(self, client: httpx.AsyncClient, number: int) -> None:
        """One caller, who asks at an even pace and never makes up for lost time."""
        loop = asyncio.get_running_loop()
        pace = _CALLERS / REQUESTS_PER_SECOND
        due = loop.time() + pace * number / _CALLERS
        while True:
            await asyncio.sleep(due - loop.time())
            due = max(due + pace, loop.time())
            await self._ask(client, next(self._pages))

    async def _ask(self, client: httpx.AsyncClient, page: Page) -> None:
        user = f"u{self._draws.randrange(USERS)}"
        self.tally.requests += 1
        try:
            answer = await client.post(f"/r/{ROUTE}", json=page.features, headers={UNIT_HEADER: user})
            answer.raise_for_status()
            decision = Decision(answer.json()["decision"])
        except (httpx.HTTPError, ValueError, KeyError):
            self.tally.errors += 1
            return
        self.tally.note(answer.headers["Kingmaker-Arm"], answer.headers["Kingmaker-Reason"])
        account = settle(decision, page.phishing)
        token = answer.headers["Kingmaker-Decision"]
        self._due += [
            {"decision": token, "metric": metric, "value": getattr(account, metric)} for metric in METRICS
        ]

    async def _report(self, client: httpx.AsyncClient) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if self._due:
                batch, self._due = self._due, []
                await self._send(client, batch)

    async def _send(self, client: httpx.AsyncClient, batch: list[dict[str, Any]]) -> None:
        try:
            answer = await client.post("/v1/outcomes", json={"outcomes": batch})
            answer.raise_for_status()
        except httpx.HTTPError:
            self.tally.refused += len(batch)
            return
        said = answer.json()
        self.tally.outcomes += said["accepted"]
        self.tally.refused += len(said["rejected"])
