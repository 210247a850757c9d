"""The control plane as one application: which operations there are, and who may call them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse

from app.control.api import (
    arms,
    bandits,
    health,
    history,
    keys,
    off_policy,
    overrides,
    rollouts,
    routes,
    shadow,
)
from app.control.context import Context
from app.control.errors import RESPONSES, install_error_handlers
from app.control.views import Problem
from app.listeners import is_loopback
from app.version import VERSION

_DESCRIPTION = """Routes, arms, splits and rollouts; what was judged, what changed, and who was champion when.

Errors are `application/problem+json` (RFC 9457). Times are RFC 3339 in UTC, shares basis points
(10,000 = 100 %)."""


def create_app(context: Context) -> FastAPI:
    """The application over a context."""
    api = FastAPI(
        title="Kingmaker",
        version=VERSION,
        description=_DESCRIPTION,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.context = context
    for part in (routes, arms, overrides, rollouts, bandits, history, off_policy, shadow, keys):
        api.include_router(part.router, prefix="/v1", responses=RESPONSES)
    api.include_router(health.router)
    api.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    install_error_handlers(api)
    api.openapi = lambda: _openapi(api)  # type: ignore[method-assign] # as FastAPI's documentation has it
    return api


def listener_problem(host: str, has_keys: bool) -> str | None:
    """Why the control plane must not listen on this host; None when it may."""
    if has_keys or is_loopback(host):
        return None
    return (
        f"host must be loopback while no API key exists, got {host}: "
        "make the first key with `kingmaker keys create --role admin --name NAME`, then start again"
    )


def _openapi(api: FastAPI) -> dict[str, Any]:
    """The description, with our problem documents in place of the framework's own errors."""
    if api.openapi_schema is None:
        found = get_openapi(
            title=api.title, version=api.version, description=api.description, routes=api.routes
        )
        schemas = found["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        api.openapi_schema = found
    return api.openapi_schema
