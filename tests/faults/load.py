"""Callers who keep their connections, as proxies and connection pools do, and count what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.app.gateway.stage import Message
from tests.app.product import Server

CUT = (ConnectionError, asyncio.IncompleteReadError)


@dataclass
class Load:
    """Callers who ask one request after the other, and connect anew when the answer says that it is the last.

    Mutable state: how many were answered, in how many connections; what was answered other than 200, and
    what was cut off; whether it is over.
    """

    answered: int = 0
    connections: int = 0
    wrong: list[Message] = field(default_factory=list)
    cut: list[BaseException] = field(default_factory=list)
    over: bool = False

    @asynccontextmanager
    async def on(self, server: Server, callers: int, pause: float = 0.0) -> AsyncIterator[None]:
        """Load for as long as the block lasts; each caller rests for `pause` seconds after an answer."""
        self.over = False
        async with asyncio.TaskGroup() as running:
            for _ in range(callers):
                running.create_task(self._ask(server, pause))
            try:
                yield
            finally:
                self.over = True

    async def _ask(self, server: Server, pause: float) -> None:
        while not self.over:
            try:
                await self._keep_asking(server, pause)
            except CUT as error:
                self.cut.append(error)

    async def _keep_asking(self, server: Server, pause: float) -> None:
        async with server.caller() as caller:
            self.connections += 1
            while not self.over:
                answer = await caller.ask(X_User_Id="ann")
                self.answered += 1
                if answer.status != 200:
                    self.wrong.append(answer)
                if answer["connection"] == "close":
                    return
                await asyncio.sleep(pause)
