"""Arms: a challenger is registered, changed, retired. What it gets of the traffic is the rollout's."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter

from app.control.api.moves import change
from app.control.api.parameters import ArmName, IfMatch, Reason, RouteName, Scope
from app.control.auth import Operator
from app.control.documents import (
    BadDeclaration,
    arm_document,
    arm_of,
    headers_of,
    plain,
    require_sound,
    sample_of,
    tls_of,
)
from app.control.pins import require_unpinned
from app.control.schemas import ArmChange, ArmDocument
from app.db import routes
from app.db.errors import Conflict, NotFound
from app.db.routes import StoredRoute
from app.db.session import Connection
from app.db.timeline import Entry, Kind
from policies.errors import BadSpec, IllegalTransition
from policies.lifecycle import with_arms
from policies.spec import ArmSpec, arm_problems
from routing.types import Role

router = APIRouter(tags=["arms"])


@router.post("/routes/{route}/arms", status_code=201, response_model_exclude_none=True)
async def register_arm(
    name: RouteName, document: ArmDocument, context: Scope, caller: Operator
) -> ArmDocument:
    """Register a challenger, which gets traffic once a rollout starts or the split names it, or a shadow."""
    if document.role == "champion":
        bound = "must be challenger or shadow for a new arm (promote it later)"
        raise BadSpec("role", f"{bound}, got {document.role!r}")
    arm = _checked(arm_of(document))
    await context.places.require_arm(arm.name, arm.url)

    async def add(connection: Connection, route: StoredRoute, at_ms: int) -> tuple[StoredRoute, Entry]:
        if arm.name in route.arm_ids:
            raise Conflict(f"name must not be that of another arm of route {route.name!r}, got {arm.name!r}")
        arm_id = await routes.insert_arm(connection, route.id, arm, at_ms)
        entry = Entry(Kind.ARM_ADDED, caller.name, f"registered {arm.url}", arm.name)
        known = replace(route, arm_ids={**route.arm_ids, arm.name: arm_id})
        return _with_arms(known, (*route.spec.arms, arm)), entry

    await change(context, name, add)
    return arm_document(arm)


@router.patch("/routes/{route}/arms/{arm}", response_model_exclude_none=True)
async def change_arm(
    name: RouteName,
    arm_name: ArmName,
    wanted: ArmChange,
    context: Scope,
    caller: Operator,
    if_match: IfMatch = None,
) -> ArmDocument:
    """Change how an arm is called, or make a challenger without traffic a shadow, or a shadow a challenger.

    A new model deserves a new arm, with evidence of its own.
    """
    if wanted.url is not None:
        await context.places.require_arm(arm_name, wanted.url)

    async def alter(
        connection: Connection, route: StoredRoute, at_ms: int
    ) -> tuple[StoredRoute, Entry] | None:
        before = _arm(route, arm_name)
        after = _checked(_changed(before, wanted))
        if after == before:
            return None
        arms = tuple(after if arm.name == arm_name else arm for arm in route.spec.arms)
        await require_unpinned(connection, route, replace(route.spec, arms=arms), at_ms)
        await routes.update_arm(connection, route.arm_ids[arm_name], after)
        shown = [plain(arm_document(arm)) for arm in (before, after)]
        fields = [name for name in ArmChange.model_fields if shown[0].get(name) != shown[1].get(name)]
        entry = Entry(Kind.ARM_CHANGED, caller.name, f"changed {', '.join(fields)}", arm_name)
        return _with_arms(route, arms), entry

    return arm_document(_arm(await change(context, name, alter, if_match), arm_name))


@router.delete("/routes/{route}/arms/{arm}", status_code=204)
async def retire_arm(
    name: RouteName,
    arm_name: ArmName,
    context: Scope,
    caller: Operator,
    reason: Reason = "retired",
    if_match: IfMatch = None,
) -> None:
    """Take an arm out of service.

    No weight, cap or override may name it. A bandit goes on with the others.
    """

    async def remove(connection: Connection, route: StoredRoute, at_ms: int) -> tuple[StoredRoute, Entry]:
        _arm(route, arm_name)
        left = tuple(arm for arm in route.spec.arms if arm.name != arm_name)
        wanted = _with_arms(route, left)
        await require_unpinned(connection, route, wanted.spec, at_ms)
        await routes.retire_arm(connection, route.arm_ids[arm_name], at_ms)
        return wanted, Entry(Kind.ARM_RETIRED, caller.name, reason, arm_name)

    await change(context, name, remove, if_match)


def _with_arms(route: StoredRoute, arms: tuple[ArmSpec, ...]) -> StoredRoute:
    """The route with these arms in service.

    Raises:
        IllegalTransition: an arm that would go is the champion or holds a share.
        BadDeclaration: it has a cap in the split, or the bandit cannot divide the traffic among the others.
    """
    _require_uncapped(route, arms)
    rollout = with_arms(route.rollout, tuple(arm.name for arm in arms if arm.answers))
    wanted = routes.placed(replace(route.spec, arms=arms), rollout)
    require_sound(wanted)
    return replace(route, spec=wanted, rollout=rollout)


def _require_uncapped(route: StoredRoute, arms: tuple[ArmSpec, ...]) -> None:
    """A cap is a person's word about an arm: it does not go with the arm, unseen."""
    left = {arm.name for arm in arms if arm.answers}
    caps = {} if route.spec.bandit is None else route.spec.bandit.caps
    first = "must be taken out of the split before the arm goes or becomes a shadow"
    if found := [
        BadSpec(f"split.cap.{name}", f"{first}, got {caps[name]}") for name in caps if name not in left
    ]:
        raise BadDeclaration(f"route {route.name!r}", found)


def _arm(route: StoredRoute, name: str) -> ArmSpec:
    found = next((arm for arm in route.spec.arms if arm.name == name), None)
    if found is None:
        raise NotFound(f"route {route.name!r} has no arm {name!r}")
    return found


def _changed(arm: ArmSpec, wanted: ArmChange) -> ArmSpec:
    role = arm.role if wanted.role is None else Role(wanted.role)
    if arm.role is Role.CHAMPION is not role:
        raise IllegalTransition(f"role must stay champion until another arm is promoted, got {role.value!r}")
    same_role = role is arm.role and wanted.sample is None
    return replace(
        arm,
        url=arm.url if wanted.url is None else wanted.url,
        role=role,
        labels=arm.labels if wanted.labels is None else dict(wanted.labels),
        headers=arm.headers if wanted.headers is None else headers_of(wanted.headers),
        sample_bp=arm.sample_bp if same_role else sample_of(wanted.sample),
        tls=arm.tls if wanted.tls is None else tls_of(wanted.tls),
    )


def _checked(arm: ArmSpec) -> ArmSpec:
    """The arm, if it can be. Its fields stand at the top of the body, so their names need no prefix."""
    found = arm_problems(arm, "arm")
    if errors := [BadSpec(error.field.removeprefix("arm."), error.message) for error in found]:
        raise BadDeclaration(f"arm {arm.name!r}", errors)
    return arm
