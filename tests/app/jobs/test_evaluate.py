"""The policy is run on what is closed, mature and recorded; what follows is written whole or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app.clock import days_of
from app.db.errors import Conflict, NotFound
from app.db.evaluations import EvaluationKind
from app.db.routes import StoredRoute, delete_route
from app.db.session import Connection, Database
from app.db.timeline import Kind
from app.jobs.evaluate import POLICY, SETTLE_MS, due_day, evaluate
from policies.lifecycle import approve, pause, resume, roll_back, set_kill_switch, set_split, start
from policies.metrics import Metric
from policies.promotion import Streak
from policies.spec import Approval
from policies.types import Action, Phase, Verdict
from policies.types import Kind as MetricKind
from routing.types import TOTAL_BP, Upstream
from tests.app.db.stage import (
    DAY_MS,
    HOUR_MS,
    QUICK,
    START_MS,
    day,
    due_ms,
    evaluations_of,
    fill,
    get_route,
    put_route,
    route_spec,
    row_counts,
    save,
    timeline_of,
)

BETTER = {"old": (1_000, 100), "new": (1_000, 200)}
WORSE = {"old": (1_000, 200), "new": (1_000, 100)}
ALIKE = {"old": (1_000, 150), "new": (1_000, 150)}
QUIET = {"old": (1_000, 0), "new": (1_000, 0)}
NOON_MS = START_MS + 12 * HOUR_MS


async def live(
    database: Database, route: StoredRoute, numbers: range, rates: Mapping[str, tuple[int, int]]
) -> StoredRoute:
    """Days that go by: each is filled, and judged as soon as it is due."""
    for number in numbers:
        route = await get_route(database, route.name)
        await fill(database, route, number, rates)
        await evaluate(database, route.name, due_ms(route, number), due_ms(route, number))
    return await get_route(database, route.name)


async def counts(database: Database) -> dict[str, int]:
    """How many rows each table has."""
    async with database.read() as connection:
        return await row_counts(connection)


class Meddled(Database):
    """A database in which somebody pauses the route between an evaluator's reading and its first writing."""

    meddle = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The same, after the meddling."""
        if self.meddle:
            self.meddle = False
            route = await get_route(self)
            await save(self, route, pause(route.rollout), Kind.PAUSED)
        async with super().transaction() as connection:
            yield connection


async def test_a_better_challenger_is_promoted_step_by_step(database: Database) -> None:
    """It earns a streak from the third day on, a half of the traffic with two wins, and the crown with one
    more; each day is an evaluation, each move an entry that points to its evaluation."""
    route = await live(database, await put_route(database), range(5), BETTER)
    judged = await evaluations_of(database, route)
    assert [one.action for one in judged] == [Action.HOLD] * 3 + [Action.STEP, Action.PROMOTE]
    assert [one.verdict for one in judged] == [Verdict.INSUFFICIENT_DATA] * 2 + [Verdict.WIN] * 3
    assert [one.streak.winning for one in judged] == [0, 0, 1, 2, 3]
    assert [one.day for one in judged] == [f"2025-01-{number:02}" for number in range(6, 11)]
    assert [one.weights["new"] for one in judged] == [1_000] * 4 + [5_000]
    assert {(one.challenger, one.champion, one.kind) for one in judged} == {
        ("new", "old", EvaluationKind.DAY)
    }
    entries = await timeline_of(database, route)
    assert [entry.kind for entry in entries] == [Kind.ROUTE_CREATED, Kind.STEPPED, Kind.PROMOTED]
    assert [entry.weights["new"] for entry in entries] == [1_000, 5_000, TOTAL_BP]
    assert (route.rollout.champion, route.rollout.phase) == ("new", Phase.PROMOTED)
    assert route.rollout.weights == {"old": 0, "new": TOTAL_BP}
    assert route.frozen_through_ms == day(route, 4).end_ms


async def test_an_entry_carries_the_evidence_of_its_evaluation(database: Database) -> None:
    """What the policy does, it does in its own name, for a reason in words and numbers, with the evaluation's
    id and record; and the rollout, evaluation and entry agree on the version that was read and written."""
    route = await live(database, await put_route(database), range(4), BETTER)
    created, stepped = await timeline_of(database, route)
    evaluation = (await evaluations_of(database, route))[-1]
    counted = await counts(database)
    assert counted["evaluations"] == stepped.evaluation_id == 4
    assert (stepped.actor, stepped.challenger, stepped.champion) == (POLICY, "new", "old")
    assert "2 winning days running, 4 days of evidence" in stepped.reason
    assert stepped.reason.startswith(evaluation.reason)
    assert stepped.evidence["judgement"]["chance_to_beat"] > 0.99
    assert (evaluation.version, stepped.version, route.version) == (4, 5, 5)
    assert (created.epoch, stepped.epoch, counted["allocations"]) == (1, 2, 2)
    assert (evaluation.at_ms, stepped.at_ms) == (due_ms(route, 3), due_ms(route, 3))


async def test_a_worse_challenger_is_rolled_back(database: Database) -> None:
    """One lost day takes its traffic away, and its trial is over."""
    route = await live(database, await put_route(database), range(3), WORSE)
    assert (await evaluations_of(database, route))[-1].verdict is Verdict.LOSE
    last = (await timeline_of(database, route))[-1]
    assert (last.kind, last.actor, last.weights) == (Kind.ROLLED_BACK, POLICY, {"old": TOTAL_BP, "new": 0})
    assert "1 losing day," in last.reason
    assert route.rollout.phase is Phase.ROLLED_BACK
    assert await evaluate(database, "ads", due_ms(route, 9), due_ms(route, 9)) is False


async def test_a_challenger_that_proves_nothing_ends_at_the_horizon(database: Database) -> None:
    """After the longest time without a decision the champion keeps the traffic."""
    policy = replace(QUICK, horizon_days=4)
    route = await live(database, await put_route(database, route_spec(policy=policy)), range(5), ALIKE)
    assert [one.action for one in await evaluations_of(database, route)] == [Action.HOLD] * 3 + [Action.END]
    assert (await timeline_of(database, route))[-1].kind is Kind.ENDED
    assert (route.rollout.champion, route.rollout.phase) == ("old", Phase.INCONCLUSIVE)


async def test_a_step_that_waits_for_a_person_is_told_once(database: Database) -> None:
    """With manual approval an earned step moves nothing, is one entry however long it waits, and is taken
    when a person approves; days go on being judged."""
    policy = replace(QUICK, approval=Approval.MANUAL)
    route = await live(database, await put_route(database, route_spec(policy=policy)), range(6), BETTER)
    kinds = [entry.kind for entry in await timeline_of(database, route)]
    assert kinds == [Kind.ROUTE_CREATED, Kind.AWAITING_APPROVAL]
    assert [one.action for one in await evaluations_of(database, route)][3:] == [Action.AWAIT_APPROVAL] * 3
    assert (route.rollout.phase, route.rollout.share("new")) == (Phase.AWAITING_APPROVAL, 1_000)
    after, _ = approve(route.rollout, policy, due_ms(route, 5))
    route = await save(database, route, after, Kind.APPROVED, due_ms(route, 5))
    route = await live(database, route, range(6, 7), BETTER)
    assert (await timeline_of(database, route))[-1].kind is Kind.AWAITING_APPROVAL


async def test_nothing_is_judged_before_its_day_is_due(database: Database) -> None:
    """A day is judged at the very moment when it is closed and mature and everything before is recorded, and
    not a millisecond earlier, however late it is by the clock."""
    route = await put_route(database)
    await fill(database, route, 0, BETTER)
    much_later_ms = START_MS + 99 * DAY_MS
    for seen_ms in (0, START_MS, day(route, 0).end_ms, due_ms(route, 0) - 1):
        assert await evaluate(database, "ads", seen_ms, much_later_ms) is False
        assert await evaluations_of(database, route) == []
    await evaluate(database, "ads", due_ms(route, 0), much_later_ms)
    await evaluate(database, "ads", due_ms(route, 0), much_later_ms)
    assert [one.day for one in await evaluations_of(database, route)] == ["2025-01-06"]


async def test_a_day_matures_when_its_last_outcome_can_have_come(database: Database) -> None:
    """It waits for the longest window of any metric, and for its last request to be over and on disk."""
    for name, windows, timeout_ms, wait_ms in (
        ("window", (HOUR_MS,), 2_000, HOUR_MS),
        ("longest", (HOUR_MS, 3 * HOUR_MS), 2_000, 3 * HOUR_MS),
        ("request", (1,), 2_000, 2_000 + SETTLE_MS),
        ("slow", (HOUR_MS,), HOUR_MS, HOUR_MS + SETTLE_MS),
    ):
        metrics = tuple(
            Metric(f"m{number}", MetricKind.BINARY, window_ms=window) for number, window in enumerate(windows)
        )
        spec = replace(route_spec(name, metrics=metrics), upstream=Upstream(timeout_ms=timeout_ms))
        route = await put_route(database, spec)
        (trial,) = route.rollout.active_trials
        due = day(route, 0).end_ms + wait_ms
        assert due_day(route, trial, due - 1) is None
        assert due_day(route, trial, due) == day(route, 0)
        later = replace(trial, judged_through_ms=day(route, 0).end_ms)
        assert due_day(route, later, due) is None
        assert due_day(route, later, due + DAY_MS) == day(route, 1)


async def test_days_are_those_of_the_routes_time_zone(database: Database) -> None:
    """In Berlin the day of a trial that starts at midnight in London is over an hour before London's."""
    policy = replace(QUICK, timezone="Europe/Berlin")
    route = await put_route(database, route_spec(policy=policy))
    (trial,) = route.rollout.active_trials
    day = days_of(policy).day_of(START_MS)
    assert (day.label, day.end_ms) == ("2025-01-06", START_MS + 23 * HOUR_MS)
    assert due_day(route, trial, day.end_ms + HOUR_MS) == day


async def test_missed_days_are_caught_up_one_by_one(database: Database) -> None:
    """After a week without an evaluator one run judges every day in its turn, on what was known by its end;
    the step that was earned is taken once, and its days at the old share earn no second one."""
    route = await put_route(database)
    for number in range(7):
        await fill(database, route, number, BETTER)
    assert await evaluate(database, "ads", due_ms(route, 6), due_ms(route, 6)) is True
    judged = await evaluations_of(database, route)
    assert [one.day for one in judged] == [f"2025-01-{number:02}" for number in range(6, 13)]
    assert [one.judgement.days for one in judged if one.judgement] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.action for one in judged] == [Action.HOLD] * 3 + [Action.STEP] + [Action.HOLD] * 3
    assert [one.version for one in judged] == list(range(1, 8))
    assert (await get_route(database)).rollout.share("new") == 5_000


async def test_missed_days_of_several_trials_are_judged_in_the_order_of_time(database: Database) -> None:
    """Who wins first is promoted first, as it would have been day by day, whoever has the greater share."""
    policy = replace(QUICK, ramp_bp=(TOTAL_BP,))
    spec = route_spec(weights={"old": 4_000, "slow": 4_000, "new": 2_000}, policy=policy)
    route = await put_route(database, spec)
    for number in range(8):
        slow = 100 if number < 4 else 1_000
        rates = {"old": (1_000, 100), "new": (1_000, 200), "slow": (1_000, slow)}
        await fill(database, route, number, rates)
    await evaluate(database, "ads", due_ms(route, 7), due_ms(route, 7))
    judged = [(one.day[-2:], one.challenger) for one in await evaluations_of(database, route)]
    assert judged == [(f"{number:02}", arm) for number in range(6, 10) for arm in ("slow", "new")]
    assert (await get_route(database)).rollout.champion == "new"


async def test_a_breach_between_days_rolls_back_at_once(database: Database) -> None:
    """Errors that cross a guardrail in the middle of a day take the traffic away with no day judged; the
    evaluation says so, of its own kind, with the reading."""
    route = await put_route(database)
    await fill(database, route, 0, QUIET, errors={"old": 10, "new": 300})
    assert await evaluate(database, "ads", NOON_MS, NOON_MS) is True
    (evaluation,) = await evaluations_of(database, route)
    assert (evaluation.kind, evaluation.verdict) == (EvaluationKind.GUARDRAIL, Verdict.UNHEALTHY)
    assert (evaluation.judgement, evaluation.day, evaluation.at_ms) == (None, "2025-01-06", NOON_MS)
    (reading,) = evaluation.guardrails
    assert (reading.metric, reading.breached, reading.challenger_rate) == ("error", True, 0.3)
    last = (await timeline_of(database, route))[-1]
    assert (last.kind, last.actor, last.weights["new"]) == (Kind.ROLLED_BACK, POLICY, 0)
    assert last.reason.startswith("guardrail error: rate 0.3000 against the champion's 0.0100")
    assert (await get_route(database)).frozen_through_ms == 0


async def test_guardrails_are_live_while_steps_are_suspended(database: Database) -> None:
    """A paused rollout is judged and not moved by its days, but a breach rolls it back all the same."""
    route = await put_route(database)
    route = await save(database, route, pause(route.rollout), Kind.PAUSED)
    route = await live(database, route, range(4), BETTER)
    assert [one.action for one in await evaluations_of(database, route)] == [Action.HOLD] * 4
    assert (route.rollout.share("new"), route.rollout.trials[0].streak) == (1_000, Streak(winning=2))
    await fill(database, route, 4, QUIET, errors={"old": 0, "new": 500})
    assert await evaluate(database, "ads", due_ms(route, 3), due_ms(route, 3) + 1) is True
    now = (await get_route(database)).rollout
    assert (now.phase, now.share("new"), now.suspended) == (Phase.ROLLED_BACK, 0, False)


async def test_a_resumed_rollout_goes_on_with_its_streak(database: Database) -> None:
    """Days judged during a pause count: the first day after it takes the step that they earned."""
    route = await put_route(database)
    route = await save(database, route, pause(route.rollout), Kind.PAUSED)
    route = await live(database, route, range(4), BETTER)
    route = await save(database, route, resume(route.rollout), Kind.RESUMED)
    route = await live(database, route, range(4, 5), BETTER)
    assert (await timeline_of(database, route))[-1].kind is Kind.STEPPED


async def test_a_kill_switch_holds_every_step(database: Database) -> None:
    """While all traffic is the champion's by a person's word, days are judged and nothing moves."""
    route = await put_route(database)
    route = await save(database, route, set_kill_switch(route.rollout, True), Kind.KILL_SWITCH_ON)
    route = await live(database, route, range(5), WORSE)
    assert {one.action for one in await evaluations_of(database, route)} == {Action.HOLD}
    assert route.rollout.phase is Phase.TRIAL


async def test_only_the_breached_trial_ends(database: Database) -> None:
    """Of two challengers the healthy one keeps its share and is judged on; a guardrail comes before days."""
    spec = route_spec(weights={"old": 8_000, "bad": 1_000, "new": 1_000})
    route = await put_route(database, spec)
    rates = {"old": (800, 80), "bad": (100, 10), "new": (100, 10)}
    await fill(database, route, 0, rates, errors={"bad": 60})
    await evaluate(database, "ads", due_ms(route, 0), due_ms(route, 0))
    judged = await evaluations_of(database, route)
    assert [(one.kind.value, one.challenger) for one in judged] == [("guardrail", "bad"), ("day", "new")]
    assert (await get_route(database)).rollout.weights == {"old": 9_000, "bad": 0, "new": 1_000}


async def test_a_guardrail_begins_anew_with_each_epoch(database: Database) -> None:
    """Errors of an earlier allocation do not count against a challenger that is tried again."""
    route = await put_route(database)
    await fill(database, route, 0, QUIET, errors={"old": 0, "new": 500})
    await evaluate(database, "ads", NOON_MS, NOON_MS)
    route = await get_route(database)
    again = start(route.rollout, "new", 1_000, NOON_MS + 1)
    route = await save(database, route, again, Kind.ROLLOUT_STARTED, NOON_MS + 1)
    assert await evaluate(database, "ads", NOON_MS + 2, NOON_MS + 2) is False
    await fill(database, route, 0, QUIET, errors={"old": 0, "new": 500})
    assert await evaluate(database, "ads", NOON_MS + 3, NOON_MS + 3) is True
    kinds = [one.kind for one in await evaluations_of(database, route)]
    assert kinds == [EvaluationKind.GUARDRAIL] * 2


@pytest.mark.parametrize(("first_arm_ms", "is_withdrawn"), [(DAY_MS, True), (None, False)])
async def test_where_units_keep_their_arms_a_guardrail_looks_at_all_of_a_trial(
    database: Database, first_arm_ms: int | None, is_withdrawn: bool
) -> None:
    """Whoever was drawn before a step still meets the challenger, and its errors are counted there."""
    before = await put_route(database, replace(route_spec(), first_arm_ms=first_arm_ms))
    weights = {"old": 5_000, "new": 5_000}
    stepped = set_split(before.rollout, weights, NOON_MS)
    after = await save(database, before, stepped, Kind.SPLIT_CHANGED, NOON_MS)
    await fill(database, before, 0, QUIET, errors={"old": 0, "new": 500})
    await fill(database, after, 0, QUIET)
    assert await evaluate(database, "ads", NOON_MS + 1, NOON_MS + 1) is is_withdrawn


async def test_a_trial_begun_anew_is_judged_on_its_own_evidence(database: Database) -> None:
    """What a challenger won before it was rolled back does not count when it is tried again, and a day that
    both trials saw is judged for each."""
    route = await live(database, await put_route(database), range(3), BETTER)
    now_ms = START_MS + 3 * DAY_MS + 2 * HOUR_MS
    route = await save(database, route, roll_back(route.rollout, "new", now_ms), Kind.ROLLED_BACK, now_ms)
    again = start(route.rollout, "new", 1_000, now_ms + 1)
    route = await save(database, route, again, Kind.ROLLOUT_STARTED, now_ms + 1)
    await live(database, route, range(3, 4), BETTER)
    last = (await evaluations_of(database, route))[-1]
    assert last.judgement is not None
    assert (last.judgement.days, last.verdict, last.streak.winning) == (1, Verdict.INSUFFICIENT_DATA, 0)


async def test_a_route_without_a_goal_is_left_alone_but_for_its_guardrails(database: Database) -> None:
    """Nothing to judge by: no day is ever due, however many have passed; a breach still rolls back."""
    route = await put_route(database, route_spec(metrics=()))
    await fill(database, route, 0, QUIET)
    assert await evaluate(database, "ads", due_ms(route, 30), due_ms(route, 30)) is False
    assert await evaluations_of(database, route) == []
    await fill(database, route, 1, QUIET, errors={"old": 0, "new": 500})
    assert await evaluate(database, "ads", due_ms(route, 30), due_ms(route, 30)) is True
    assert (await get_route(database)).rollout.phase is Phase.ROLLED_BACK


async def test_a_day_without_data_is_judged_as_such(database: Database) -> None:
    """A silent day moves nothing and earns nothing, but is over: the next is judged after it."""
    route = await put_route(database)
    assert await evaluate(database, "ads", due_ms(route, 1), due_ms(route, 1)) is False
    judged = await evaluations_of(database, route)
    assert [(one.day, one.verdict, one.action) for one in judged] == [
        ("2025-01-06", Verdict.INSUFFICIENT_DATA, Action.HOLD),
        ("2025-01-07", Verdict.INSUFFICIENT_DATA, Action.HOLD),
    ]
    assert len(await timeline_of(database, route)) == 1


async def test_a_conflict_while_judging_writes_nothing(database: Database) -> None:
    """When a person changes the route after it was read, the run is refused with no trace, and the next run
    judges the same day from what that person left."""
    route = await live(database, await put_route(database), range(3), BETTER)
    await fill(database, route, 3, BETTER)
    before = await counts(database)
    meddled = Meddled(database.engine.url.render_as_string(hide_password=False))
    with pytest.raises(Conflict, match="since version 4 was read"):
        await evaluate(meddled, "ads", due_ms(route, 3), due_ms(route, 3))
    await meddled.close()
    assert await counts(database) == {**before, "timeline": before["timeline"] + 1}
    await evaluate(database, "ads", due_ms(route, 3), due_ms(route, 3))
    last = (await evaluations_of(database, route))[-1]
    assert (last.day, last.verdict, last.action, last.version) == ("2025-01-09", Verdict.WIN, Action.HOLD, 5)


async def test_a_route_that_is_gone_is_not_found(database: Database) -> None:
    """A deleted route, or a name that never was one, is told as NotFound."""
    route = await put_route(database)
    async with database.transaction() as connection:
        await delete_route(connection, route.id, NOON_MS)
    for name in ("ads", "nobody"):
        with pytest.raises(NotFound):
            await evaluate(database, name, due_ms(route, 9), due_ms(route, 9))
