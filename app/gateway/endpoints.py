"""What becomes of a request to the gateway itself? It is read to its end, and answered once."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

from app.gateway.answers import Answer
from app.gateway.cors import preflight_lines, shared_lines
from app.gateway.replies import JSON, PROBLEM, Framing, problem

if TYPE_CHECKING:
    from app.gateway.http1 import ClientConnection
    from app.gateway.requests import Request
    from app.gateway.worker import Worker

NO_SNAPSHOT = "no snapshot has been loaded yet"
RETRY = b"Retry-After: 1\r\n"
_BODILESS = (204, 304)


class Refusal:
    """A request that is answered with a problem, whatever its body."""

    def __init__(self, client: ClientConnection, status: int, detail: str, lines: bytes = b"") -> None:
        self._client = client
        self._status = status
        self._detail = detail
        self._lines = lines

    def start(self) -> None:
        self._client.answer(self._status, problem(self._status, self._detail), PROBLEM, self._lines)

    def on_body(self) -> None:
        pass

    def abandon(self, status: int | None = None) -> None:
        pass

    def pause_answer(self) -> None:
        pass

    def resume_answer(self) -> None:
        pass


class Options(Refusal):
    """`OPTIONS` of the gateway itself: what it passes on, and takes."""

    def __init__(self, client: ClientConnection) -> None:
        super().__init__(client, 200, "")

    def start(self) -> None:
        self._client.answer(200, b"", lines=b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")


class Preflight(Refusal):
    """A browser asks whether a page may call an endpoint. A page of an origin that is not named may not."""

    def __init__(self, client: ClientConnection, request: Request, origins: tuple[str, ...]) -> None:
        origin = (request.field(b"origin") or b"").decode("latin-1")
        lines = shared_lines(origins, request)
        super().__init__(client, 403, f"Origin must be one of cors_origins, got {origin!r}", lines)
        self._request = request
        self._allowed = preflight_lines(origins, request)

    def start(self) -> None:
        if self._allowed:
            answer_bare(self._client, self._request, 204, self._allowed)
        else:
            super().start()


class Endpoint:
    """A request to the gateway itself: answered once its whole body is there.

    `is_shared`: whether pages of `cors_origins` may see the answer. `slice_size`: of many things so many are
    worked on before others have their turn.
    """

    is_shared: ClassVar[bool] = False
    slice_size: ClassVar[int] = 50

    def __init__(self, worker: Worker, client: ClientConnection, request: Request, limit_bytes: int) -> None:
        self.worker = worker
        self.request = request
        self._client: ClientConnection | None = client
        self._limit_bytes = limit_bytes
        self._begun = False
        request.hold_bytes = limit_bytes

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._client is None

    def start(self) -> None:
        self.on_body()

    def on_body(self) -> None:
        if self._begun:
            return
        if max(self.request.pending, self.request.length or 0) > self._limit_bytes:
            self._begun = True
            self.refuse(413, f"body must be at most {self._limit_bytes} bytes, got more")
        elif self.request.complete:
            self._begun = True
            self.respond(b"".join(self.request.take_body()))

    def abandon(self, status: int | None = None) -> None:
        self._client = None

    def pause_answer(self) -> None:
        pass

    def resume_answer(self) -> None:
        pass

    def respond(self, body: bytes) -> None:
        """Answers the whole request."""
        raise NotImplementedError

    def answer(self, status: int, body: bytes, content_type: bytes = JSON, lines: bytes = b"") -> None:
        """Sends the answer, if the caller is still there."""
        client, self._client = self._client, None
        if client is None:
            return
        if self.is_shared:
            lines += shared_lines(self.worker.settings.cors_origins, self.request)
        if status in _BODILESS:
            answer_bare(client, self.request, status, lines)
        else:
            client.answer(status, body, content_type, lines)

    def refuse(self, status: int, detail: str, lines: bytes = b"") -> None:
        """Sends a problem."""
        self.answer(status, problem(status, detail), PROBLEM, lines)

    def in_slices(
        self, count: int, work: Callable[[int, int], None], done: Callable[[], None], first: int = 0
    ) -> None:
        """Works on many things, from one index up to another at a time; in between others have their turn."""
        end = min(first + self.slice_size, count)
        work(first, end)
        if end < count:
            self.worker.loop.call_soon(self.in_slices, count, work, done, end)
        else:
            done()


def answer_bare(client: ClientConnection, request: Request, status: int, lines: bytes) -> None:
    """Answers with a status that has no body, and so neither length nor type."""
    answer = Answer()
    answer.status, answer.reason, answer.complete = status, HTTPStatus(status).phrase.encode(), True
    framing = Framing(request, answer, client.may_keep_alive(request))
    client.write(framing.head(answer, lines))
    client.finish(framing.keep_alive)
