"""Every error of the control plane as a problem document (RFC 9457), and the one table of their statuses."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.control.documents import BadDeclaration, field_errors
from app.control.views import FieldError, Problem
from app.db.errors import Conflict, DatabaseUnavailable, NotFound
from app.durations import format_duration
from policies.errors import BadSpec, CannotJudge, IllegalTransition
from routing.errors import BadWeights

PROBLEM_JSON = "application/problem+json"
_RETRY = {"Retry-After": "1"}
_IN_MS = re.compile(r"must be in \[([0-9]+), ([0-9]+)\] ms, got -?[0-9]+")
_log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that the control plane refuses by itself, with its HTTP status."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


STATUSES: dict[type[Exception], HTTPStatus] = {
    BadDeclaration: HTTPStatus.UNPROCESSABLE_ENTITY,
    BadSpec: HTTPStatus.UNPROCESSABLE_ENTITY,
    BadWeights: HTTPStatus.UNPROCESSABLE_ENTITY,
    CannotJudge: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    IllegalTransition: HTTPStatus.CONFLICT,
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""What each error of the parts below means to a client."""

RESPONSES: dict[int | str, dict[str, object]] = {
    status: {
        "description": description,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, description in (
        (400, "The body is not JSON."),
        (401, "A valid API key is needed."),
        (403, "The key's role does not allow this."),
        (404, "There is no such thing."),
        (409, "Not from where the route stands now."),
        (412, "The route has changed since it was read (If-Match)."),
        (422, "A field cannot be as it is: see `errors`."),
        (503, "The database cannot be reached."),
    )
}
"""What every operation of the API may answer instead."""


def install_error_handlers(app: FastAPI) -> None:
    """Make every error that leaves the app a problem document."""
    for kind in STATUSES:
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)


def problem(
    status: int, detail: str, errors: Sequence[BadSpec] = (), headers: dict[str, str] | None = None
) -> JSONResponse:
    """A problem document as a response."""
    fields = [FieldError(field=error.field, message=_in_units(error.message)) for error in errors]
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=_in_units(detail), errors=fields or None)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, media_type=PROBLEM_JSON)


def _in_units(text: str) -> str:
    """Bounds in milliseconds, also as durations, which is how they are declared."""
    return _IN_MS.sub(lambda found: f"{found[0]} ({' to '.join(map(_duration, found.groups()))})", text)


def _duration(milliseconds: str) -> str:
    return format_duration(int(milliseconds))


async def _known(_: Request, error: Exception) -> JSONResponse:
    status = next(STATUSES[kind] for kind in type(error).mro() if kind in STATUSES)
    if isinstance(error, DatabaseUnavailable):
        _log.error("database_unavailable", extra={"fields": {"error": str(error)}})
        return problem(status, "the database cannot be reached now", headers=_RETRY)
    return problem(status, str(error), _fields(error))


def _fields(error: Exception) -> Sequence[BadSpec]:
    match error:
        case BadDeclaration():
            return error.errors
        case BadSpec():
            return (error,)
        case BadWeights():
            return (BadSpec("weights", f"cannot be: {error}"),)
        case CannotJudge():
            return (BadSpec("policy", f"cannot be judged: {error.reason}"),)
        case _:
            return ()


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 - registered for this class
    challenge = {"WWW-Authenticate": "Bearer"} if error.status is HTTPStatus.UNAUTHORIZED else None
    return problem(error.status, str(error), headers=challenge)


async def _of_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    detail = error.detail
    if error.status_code in (404, 405):
        detail = f"{error.detail}: {request.method} {request.url.path}"
    return problem(error.status_code, detail, headers=dict(error.headers or {}))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    found = error.errors()
    if any(part["type"] == "json_invalid" for part in found):
        return problem(400, f"body must be JSON: {found[0].get('ctx', {}).get('error', 'it is not')}")
    errors = [_of_query(error, part) for error, part in zip(field_errors(found), found, strict=True)]
    return problem(422, "; ".join(str(part) for part in errors), errors)


def _of_query(error: BadSpec, part: Mapping[str, Any]) -> BadSpec:
    """One about a missing parameter of the query says where it belongs, as others would be in a body."""
    if part["type"] != "missing" or part["loc"][0] != "query":
        return error
    where = f"send it as a query parameter, as in ?{error.field}=…"
    return BadSpec(error.field, f"{error.message}: {where}")


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request_failed", exc_info=error, extra={"fields": {"path": request.url.path}})
    return problem(500, "something went wrong here; the server's log says what")
