"""How does a command reach the control plane, and what does a person read when that fails?"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from app.listeners import is_loopback

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ControlPlaneError(Exception):
    """It refused, or cannot be reached; the message says what to do next. `status` is that of HTTP."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ControlPlane:
    """The control plane's API at a URL, for the holder of a key.

    Raises:
        ControlPlaneError: the URL or the key cannot be.
    """

    def __init__(self, server: str, key: str | None = None) -> None:
        self.server = _checked_url(server).rstrip("/")
        self._http = httpx.Client(
            base_url=self.server,
            headers=_headers(key),
            timeout=_TIMEOUT,
            trust_env=not is_loopback(urlsplit(self.server).hostname or ""),
        )

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, *path: str, **query: object) -> Any:
        """What is at `/v1/{path}`; parameters of the query that are None are left out."""
        return self._ask("GET", path, query)

    def put(self, *path: str, body: Mapping[str, Any], **query: object) -> Any:
        """What putting `body` there answers."""
        return self._ask("PUT", path, query, body)

    def post(self, *path: str, body: Mapping[str, Any]) -> Any:
        """What posting `body` there answers."""
        return self._ask("POST", path, {}, body)

    def delete(self, *path: str, **query: object) -> Any:
        """What deleting it answers."""
        return self._ask("DELETE", path, query)

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        asked = "/".join(["v1", *(quote(part, safe="") for part in path)])
        given = {name: str(value) for name, value in query.items() if value is not None}
        try:
            response = self._http.request(method, asked, params=given, json=body)
        except httpx.TimeoutException as error:
            raise ControlPlaneError(
                f"{self.server} did not answer in time: is it overloaded? Try again, or see its log"
            ) from error
        except httpx.HTTPError as error:
            raise ControlPlaneError(
                f"cannot reach {self.server} ({error}): is `kingmaker serve` running? "
                "If it is elsewhere, pass --server or set KINGMAKER_SERVER"
            ) from error
        return self._answer(response, asked, f"{method} /{asked}")

    def _answer(self, response: httpx.Response, path: str, asked: str) -> Any:
        content = _content(response)
        if response.is_success and content is not _NOT_JSON:
            return content
        elsewhere = path == _ALWAYS_THERE and response.status_code == HTTPStatus.NOT_FOUND
        if isinstance(content, dict) and isinstance(content.get("title"), str) and not elsewhere:
            raise ControlPlaneError(_problem(content, response.status_code), response.status_code)
        raise ControlPlaneError(
            f"{self.server} answered {response.status_code} to {asked}, but not as Kingmaker's control plane "
            "does: pass the control plane's address (by default port 8081) as --server",
            response.status_code,
        )


_NOT_JSON = object()
_ALWAYS_THERE = "v1/routes"
"""A path that every control plane has: a server without it is another, such as the gateway."""


def _content(response: httpx.Response) -> object:
    if response.status_code == HTTPStatus.NO_CONTENT:
        return None
    try:
        return response.json()
    except ValueError:
        return _NOT_JSON


def _problem(problem: Mapping[str, Any], status: int) -> str:
    text = str(problem.get("detail") or problem["title"])
    faults = [f"{fault.get('field')} {fault.get('message')}" for fault in problem.get("errors") or ()]
    lines = [text, *(f"  {fault}" for fault in faults if fault not in text)]
    if status == HTTPStatus.UNAUTHORIZED:
        lines.append("pass --key or set KINGMAKER_KEY; `kingmaker keys create` makes one beside the database")
    return "\n".join(lines)


def _checked_url(server: str) -> str:
    wrong = f"server must be a URL such as http://127.0.0.1:8081, got {server!r}"
    try:
        parts = urlsplit(server)
        parts.port  # noqa: B018  # reading it is what checks it
    except ValueError as error:
        raise ControlPlaneError(f"{wrong}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ControlPlaneError(wrong)
    return server


def _headers(key: str | None) -> dict[str, str]:
    key = (key or "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise ControlPlaneError("key must be printable ASCII, and the one given is not")
    return {"Authorization": f"Bearer {key}"}
