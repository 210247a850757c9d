"""Parameters that several operations share."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Path, Query

from app.control.context import Context, context_of
from app.control.errors import Refused
from app.control.schemas import Text
from app.db.routes import StoredRoute

_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')

Scope = Annotated[Context, Depends(context_of)]
RouteName = Annotated[str, Path(alias="route", description="The route's name.", examples=["ad-bidder"])]
ArmName = Annotated[str, Path(alias="arm", description="The arm's name.", examples=["gbm-v7"])]
Reason = Annotated[Text, Query(description="Why, for the timeline.")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="How many at most.")]
Before = Annotated[
    int | None, Query(ge=1, lt=2**63, description="Only those with a smaller id: `next` of the last page.")
]
IfMatch = Annotated[
    str | None, Header(description='The ETag of the version that was read, as in "7"; `*` is any.')
]


def expected_version(if_match: str | None) -> int | None:
    """The version that an If-Match header names; None when any will do.

    Raises:
        Refused: 412, it is not an ETag of ours.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise Refused(
            HTTPStatus.PRECONDITION_FAILED, f'If-Match must be an ETag such as "7", got {if_match!r}'
        )
    return int(found[1])


def require_version(route: StoredRoute, if_match: str | None) -> None:
    """Refuse a change by somebody who has not seen the present version.

    Raises:
        Refused: 412, the route has moved on.
    """
    expected = expected_version(if_match)
    if expected is not None and expected != route.version:
        raise Refused(
            HTTPStatus.PRECONDITION_FAILED,
            f"route {route.name!r} has version {route.version}, not {expected}: read it again",
        )


def etag(version: int) -> str:
    """The entity tag of a route's version."""
    return f'"{version}"'
