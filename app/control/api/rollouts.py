"""Split, rollout actions and kill switch: what a person does about a route's traffic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fastapi import APIRouter

from app.control.api.moves import Move, move, persist
from app.control.api.parameters import IfMatch, Reason, RouteName, Scope
from app.control.auth import Operator, Viewer
from app.control.documents import plain, require_sound
from app.control.presentation import rollout_view
from app.control.schemas import ArmAction, Because, KillSwitch, SplitChange, StartAction
from app.control.splits import bandit_of, split_document, weights_of
from app.control.views import RolloutView
from app.db import routes
from app.db.routes import StoredRoute, load_route
from app.db.session import Connection
from app.db.timeline import Entry, Kind
from policies import lifecycle
from policies.errors import BadSpec, IllegalTransition
from policies.lifecycle import Rollout
from policies.types import Action, Phase
from routing.types import Role

router = APIRouter(tags=["rollout"])

_NO_REASON = KillSwitch()


@router.get("/routes/{route}/rollout")
async def read_rollout(name: RouteName, context: Scope, _: Viewer) -> RolloutView:
    """Where the route's traffic stands: champion, shares, trials and their streaks."""
    async with context.database.read() as connection:
        return rollout_view(await load_route(connection, name))


@router.put("/routes/{route}/split")
async def set_split(
    name: RouteName, change: SplitChange, context: Scope, caller: Operator, if_match: IfMatch = None
) -> RolloutView:
    """Divide the traffic anew: by weights, or by a bandit, which ends trials.

    Weights in the middle of a trial suspend automatic steps until `resume`.
    """

    async def alter(
        connection: Connection, route: StoredRoute, at_ms: int
    ) -> tuple[StoredRoute, Entry] | None:
        weights = weights_of(change, route.spec.arms)
        _require_no_shadows(route, weights)
        wanted = replace(route.spec, bandit=bandit_of(change))
        require_sound(wanted)
        same_mode = wanted.bandit == route.spec.bandit
        if same_mode and weights == route.rollout.weights:
            return None
        rollout = lifecycle.set_split(route.rollout, weights, at_ms)
        if not same_mode:
            await routes.update_spec(connection, route.id, wanted, route.declared)
        evidence = None if same_mode else plain(split_document(weights, wanted.bandit, wanted.metrics))
        entry = Entry(Kind.SPLIT_CHANGED, caller.name, change.reason, evidence=evidence)
        return replace(route, spec=wanted, rollout=rollout), entry

    return rollout_view(await persist(context, name, alter, if_match))


@router.post("/routes/{route}/rollout/start")
async def start_trial(name: RouteName, action: StartAction, context: Scope, caller: Operator) -> RolloutView:
    """Put a challenger on trial with a share, for the first time or again."""

    def decide(route: StoredRoute, at_ms: int) -> tuple[Rollout, Entry]:
        _require_no_shadow(route, action.arm)
        _require_weights(route)
        entry = Entry(Kind.ROLLOUT_STARTED, caller.name, action.reason, action.arm)
        return lifecycle.start(route.rollout, action.arm, action.share, at_ms), entry

    return rollout_view(await move(context, name, decide))


@router.post("/routes/{route}/rollout/promote")
async def promote_challenger(
    name: RouteName, action: ArmAction, context: Scope, caller: Operator
) -> RolloutView:
    """Make a challenger the champion now, with all traffic."""

    def decide(route: StoredRoute, at_ms: int) -> tuple[Rollout, Entry]:
        _require_no_shadow(route, action.arm)
        _require_named(route, action.arm, 1)
        rollout = lifecycle.promote(route.rollout, action.arm, at_ms)
        return rollout, Entry(Kind.PROMOTED, caller.name, action.reason, rollout.champion)

    return rollout_view(await move(context, name, decide))


@router.post("/routes/{route}/rollout/rollback")
async def roll_back(name: RouteName, action: ArmAction, context: Scope, caller: Operator) -> RolloutView:
    """Take a challenger off; after a promotion, or where the champion is named, the previous one returns."""

    def decide(route: StoredRoute, at_ms: int) -> tuple[Rollout, Entry]:
        before = route.rollout
        _require_named(route, action.arm, 0)
        rollout = lifecycle.roll_back(before, action.arm, at_ms)
        gone = before.champion if rollout.champion != before.champion else _lost(before, rollout)
        return rollout, Entry(Kind.ROLLED_BACK, caller.name, action.reason, gone)

    return rollout_view(await move(context, name, decide))


@router.post("/routes/{route}/rollout/approve")
async def approve_step(name: RouteName, action: ArmAction, context: Scope, caller: Operator) -> RolloutView:
    """Take the step that a challenger has earned and that waits for a person."""

    def decide(route: StoredRoute, at_ms: int) -> tuple[Rollout, Entry]:
        waiting = [t.arm for t in route.rollout.active_trials if t.phase is Phase.AWAITING_APPROVAL]
        if waiting and action.arm not in (None, *waiting):
            raise IllegalTransition(f"arm must be the one that waits, {waiting[0]!r}, got {action.arm!r}")
        rollout, taken = lifecycle.approve(route.rollout, route.spec.policy, at_ms)
        kind = Kind.PROMOTED if taken is Action.PROMOTE else Kind.APPROVED
        return rollout, Entry(kind, caller.name, action.reason, waiting[0])

    return rollout_view(await move(context, name, decide))


@router.post("/routes/{route}/rollout/pause")
async def pause_steps(name: RouteName, action: Because, context: Scope, caller: Operator) -> RolloutView:
    """Suspend automatic steps. Guardrails stay live."""
    return rollout_view(
        await move(context, name, _plain(lifecycle.pause, Kind.PAUSED, caller.name, action.reason))
    )


@router.post("/routes/{route}/rollout/resume")
async def resume_steps(name: RouteName, action: Because, context: Scope, caller: Operator) -> RolloutView:
    """Let automatic steps go on."""
    return rollout_view(
        await move(context, name, _plain(lifecycle.resume, Kind.RESUMED, caller.name, action.reason))
    )


@router.put("/routes/{route}/kill-switch")
async def throw_kill_switch(
    name: RouteName, context: Scope, caller: Operator, switch: KillSwitch = _NO_REASON
) -> RolloutView:
    """All traffic to the champion at once. The split is kept for when the switch is taken back."""
    return rollout_view(await move(context, name, _switched(True, caller.name, switch.reason)))


@router.delete("/routes/{route}/kill-switch")
async def release_kill_switch(
    name: RouteName, context: Scope, caller: Operator, reason: Reason = "kill switch released"
) -> RolloutView:
    """Divide the traffic by the split again."""
    return rollout_view(await move(context, name, _switched(False, caller.name, reason)))


def _require_no_shadows(route: StoredRoute, weights: Mapping[str, int]) -> None:
    for arm in route.spec.arms:
        if arm.role is Role.SHADOW and arm.name in weights:
            bound = "must be 0 or absent for a shadow arm, which answers nobody"
            raise BadSpec(f"weights.{arm.name}", f"{bound}, got {weights[arm.name]}")


def _require_named(route: StoredRoute, arm: str | None, least: int) -> None:
    """Of one challenger on trial, or with `least` 0 of none, it is clear who is meant."""
    names = [trial.arm for trial in route.rollout.active_trials]
    if arm is None and not least <= len(names) <= 1:
        how = "as arm, on the command line with --arm"
        raise IllegalTransition(f"challenger must be named {how}: {len(names)} are on trial {names}")


def _require_weights(route: StoredRoute) -> None:
    if route.spec.bandit is not None:
        raise IllegalTransition(
            "split.mode must be weights to put a challenger on trial, got thompson: set weights first"
        )


def _require_no_shadow(route: StoredRoute, name: str | None) -> None:
    if any(arm.name == name and arm.role is Role.SHADOW for arm in route.spec.arms):
        raise IllegalTransition(f"arm {name!r} is a shadow and answers nobody: make it a challenger first")


def _plain(change: Callable[[Rollout], Rollout], kind: Kind, actor: str, reason: str) -> Move:
    def decide(route: StoredRoute, _: int) -> tuple[Rollout, Entry]:
        return change(route.rollout), Entry(kind, actor, reason)

    return decide


def _switched(on: bool, actor: str, reason: str) -> Move:
    """To a switch that stands so already nothing is done."""

    def decide(route: StoredRoute, _: int) -> tuple[Rollout, Entry] | None:
        if route.rollout.kill_switch is on:
            return None
        kind = Kind.KILL_SWITCH_ON if on else Kind.KILL_SWITCH_OFF
        return lifecycle.set_kill_switch(route.rollout, on), Entry(kind, actor, reason)

    return decide


def _lost(before: Rollout, after: Rollout) -> str | None:
    return next((arm for arm in before.weights if after.share(arm) < before.share(arm)), None)
