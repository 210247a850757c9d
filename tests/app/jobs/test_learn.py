"""What is mature is learnt by the present declaration, from decisions that teach, and told in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.db import bandits
from app.db.pending import Waiting
from app.db.routes import delete_route, retire_arm
from app.db.session import Database
from app.db.timeline import Kind
from app.jobs.learn import Learner
from policies.lessons import GRACE_MS, SETTLE_MS, lessons_of
from policies.rewards import Reward
from routing.features import Feature
from routing.types import Reason
from tests.app.db.stage import DAY_MS, HOUR_MS, START_MS, get_route, put_route, timeline_of
from tests.app.events.facts import told
from tests.app.jobs.school import (
    COUNTRY,
    LATER_MS,
    PROFIT,
    bandit_spec,
    chosen,
    decide,
    decided,
    known,
    learn,
    log,
    open_school,
    rebuild,
    redeclare,
    rewards,
    version,
    waiting,
)

MATURE_MS = HOUR_MS + GRACE_MS + SETTLE_MS


async def test_a_reward_is_learnt_when_it_is_mature(sqlite: Database) -> None:
    """Not a millisecond earlier: until then a decision without an outcome is none with a reward of 0."""
    route = await open_school(sqlite)
    one = chosen(route)
    await log(sqlite, decided(route, one))
    await learn(sqlite, START_MS + MATURE_MS - 1)
    assert await rewards(sqlite, route) == {}
    assert await waiting(sqlite, route) == Waiting(1, START_MS + MATURE_MS)
    await log(sqlite, told(one, "profit", 2.5, at_ms=HOUR_MS, received_at_ms=HOUR_MS + GRACE_MS))
    await learn(sqlite, START_MS + MATURE_MS)
    assert await rewards(sqlite, route) == {"new": (1, 2.5)}
    assert await waiting(sqlite, route) == Waiting(0, None)


async def test_nothing_is_learnt_while_not_everything_is_recorded(sqlite: Database) -> None:
    """What is mature may still get an outcome from a spool that could not be read. Nor is it said then that
    all there was has been learnt."""
    route = await put_route(sqlite, bandit_spec())
    await decide(sqlite, route, 1)
    learner = Learner(sqlite)
    assert await learner.learn(route, 0, LATER_MS)
    assert not await learner.learn(route, 0, LATER_MS)
    assert await rewards(sqlite, route) == {}
    async with sqlite.read() as connection:
        state = await bandits.find_state(connection, route.id)
    assert state is not None
    assert not state.caught_up
    await learn(sqlite)
    assert await rewards(sqlite, route) == {"new": (1, 1.0)}


async def test_an_outcome_that_is_received_too_late_changes_nothing(sqlite: Database) -> None:
    """Neither when it comes, nor when the log is learnt anew."""
    route = await open_school(sqlite)
    (one,) = await decide(sqlite, route, 1)
    await learn(sqlite)
    await log(sqlite, told(one, "profit", 7.0, key="late", received_at_ms=HOUR_MS + GRACE_MS + 1))
    for _ in range(2):
        await learn(sqlite)
        assert await rewards(sqlite, route) == {"new": (1, 1.0)}
        await rebuild(sqlite, route)


async def test_only_what_the_split_decided_is_learnt_from(sqlite: Database) -> None:
    """A pinned arm was chosen for another cause, which may be the cause of its reward, too."""
    route = await open_school(sqlite)
    for place, reason in enumerate(Reason):
        one = chosen(route, reason=reason)
        await log(sqlite, decided(route, one), told(one, "profit", 10.0**place))
    profits = {reason: 10.0**place for place, reason in enumerate(Reason)}
    total = profits[Reason.STATIC] + profits[Reason.SPLIT] + profits[Reason.BANDIT]
    for _ in range(2):
        await learn(sqlite)
        assert await rewards(sqlite, route) == {"new": (3, total)}
        assert (await known(sqlite, route)).unusable == 0
        await rebuild(sqlite, route)


async def test_a_decision_that_only_a_token_tells_of_is_learnt_from(sqlite: Database) -> None:
    """Without features nothing is missing. With features it waits for its record, and is unusable without."""
    plain = await open_school(sqlite)
    rich = await open_school(sqlite, bandit_spec("rich", context=(COUNTRY,)))
    lost, late, bare = chosen(rich), chosen(rich), chosen(plain)
    await log(sqlite, *(told(one, "profit", 1.0) for one in (lost, late, bare)))
    await log(sqlite, decided(rich, late, {"country": "DE"}))
    await learn(sqlite)
    assert await rewards(sqlite, plain) == {"new": (1, 1.0)}
    assert await rewards(sqlite, rich) == {"new": (1, 1.0)}
    assert (await known(sqlite, rich)).unusable == 1


async def test_what_an_arm_that_is_gone_earned_is_skipped(sqlite: Database) -> None:
    """Its decisions wait no more, and count as unusable."""
    route = await open_school(sqlite)
    await decide(sqlite, route, 2)
    async with sqlite.transaction() as connection:
        await retire_arm(connection, route.arm_ids["new"], START_MS)
    await learn(sqlite)
    route = await get_route(sqlite)
    assert (await rewards(sqlite, route), (await known(sqlite, route)).unusable) == ({}, 2)
    assert await waiting(sqlite, route) == Waiting(0, None)


async def test_what_an_apprentice_would_have_done_is_added_up(sqlite: Database) -> None:
    """By the probability that was logged with the champion's decision; once more when it is learnt anew."""
    route = await open_school(sqlite, bandit_spec(apprentice=True))
    made = [chosen(route, "old", reason=Reason.STATIC) for _ in range(2)]
    await log(
        sqlite,
        decided(route, made[0], considered_bp=2_500),
        decided(route, made[1], considered_bp=5_000),
        told(made[0], "profit", 4.0),
    )
    for _ in range(2):
        await learn(sqlite)
        totals = (await known(sqlite, route)).apprentice
        assert (totals.decisions, totals.agreement, totals.earned, totals.actual) == (2, 0.75, 1.0, 4.0)
        await rebuild(sqlite, route)


async def test_a_changed_declaration_learns_the_same_log_anew(sqlite: Database) -> None:
    """Another reward, other features, another discount: what was learnt is forgotten, the log is not."""
    route = await open_school(sqlite)
    made = [chosen(route, at_ms=START_MS + 12 * HOUR_MS * number) for number in range(3)]
    await log(sqlite, *(decided(route, one) for one in made), told(made[0], "profit", 3.0))
    now_ms = START_MS + 5 * DAY_MS
    await learn(sqlite, now_ms)
    for spec, expected in (
        (bandit_spec(reward=Reward("profit", default=-1.0)), {"new": (3, 1.0)}),
        (bandit_spec(reward=Reward("0 - profit")), {"new": (3, -3.0)}),
        (bandit_spec(discount=0.5), {"new": (3, 1.5)}),
        (bandit_spec(context=(COUNTRY,)), {}),
    ):
        route = await redeclare(sqlite, spec)
        await learn(sqlite, now_ms)
        assert await rewards(sqlite, route) == expected
    assert [entry.kind for entry in await timeline_of(sqlite, route)] == [Kind.ROUTE_CREATED]


async def test_with_another_window_a_reward_is_mature_at_another_time(sqlite: Database) -> None:
    """Also that of a decision which has waited for the end of the old one."""
    route = await open_school(sqlite)
    one = chosen(route)
    await log(sqlite, decided(route, one))
    longer = replace(PROFIT, window_ms=9 * HOUR_MS)
    route = await redeclare(sqlite, replace(bandit_spec(), metrics=(longer,)))
    await learn(sqlite)
    assert await waiting(sqlite, route) == Waiting(1, START_MS + MATURE_MS + 8 * HOUR_MS)
    await log(sqlite, told(one, "profit", 2.0, at_ms=8 * HOUR_MS, received_at_ms=8 * HOUR_MS))
    await learn(sqlite, START_MS + MATURE_MS + 8 * HOUR_MS)
    assert await rewards(sqlite, route) == {"new": (1, 2.0)}


async def test_a_learner_that_has_an_old_declaration_in_hand_begins_nothing(sqlite: Database) -> None:
    """Else it would throw away what another one has learnt by the present declaration."""
    old = await open_school(sqlite)
    await decide(sqlite, old, 2)
    route = await redeclare(sqlite, bandit_spec(reward=Reward("2 * profit")))
    await learn(sqlite)
    assert not await Learner(sqlite).learn(old, LATER_MS, LATER_MS)
    assert await rewards(sqlite, route) == {"new": (2, 4.0)}
    async with sqlite.transaction() as connection:
        await delete_route(connection, route.id, LATER_MS)
    assert not await Learner(sqlite).learn(old, LATER_MS, LATER_MS)


async def test_a_context_of_another_schema_is_read_again(sqlite: Database) -> None:
    """A value that was declared since has a column of its own."""
    route = await open_school(sqlite, bandit_spec(context=(COUNTRY,)))
    await log(sqlite, decided(route, chosen(route), {"country": "US"}))
    await learn(sqlite)
    more = Feature(name="country", source=COUNTRY.source, type=COUNTRY.type, values=("DE", "FR", "US"))
    route = await redeclare(sqlite, bandit_spec(context=(more,)))
    await learn(sqlite)
    sums = (await known(sqlite, route)).sums[route.arm_ids["new"]]
    lessons = lessons_of(route.spec)
    assert lessons is not None
    assert lessons.encoder is not None
    assert (sums.xx[lessons.encoder.columns.index("country=US")].sum(), sums.n) == (2.0, 1)


async def test_the_log_is_learnt_from_its_last_days(database: Database) -> None:
    """Of what is older than 90 days no bandit learns anew."""
    route = await open_school(database)
    now_ms = START_MS + 91 * DAY_MS
    for at_ms in (START_MS, START_MS + 2 * DAY_MS):
        await log(database, decided(route, chosen(route, at_ms=at_ms)))
    await learn(database, now_ms)
    assert await rewards(database, route) == {"new": (2, 0.0)}
    await rebuild(database, route, now_ms)
    await learn(database, now_ms)
    assert await rewards(database, route) == {"new": (1, 0.0)}


async def test_rewards_are_discounted_over_days(sqlite: Database) -> None:
    """A reward of yesterday weighs γ today, whether it was learnt yesterday or today."""
    route = await open_school(sqlite, bandit_spec(discount=0.5))
    for day in range(3):
        one = chosen(route, at_ms=START_MS + day * DAY_MS)
        await log(sqlite, decided(route, one), told(one, "profit", 8.0))
        await learn(sqlite, START_MS + day * DAY_MS + MATURE_MS)
    sums = (await known(sqlite, route)).sums[route.arm_ids["new"]]
    assert sums.n == 3
    assert (sums.weight, sums.y) == pytest.approx((1.75, 14.0))


async def test_what_was_learnt_is_forgotten_with_the_bandit(database: Database) -> None:
    """A route that weights divide again, or that is gone, leaves nothing; its log teaches a later bandit."""
    route = await open_school(database)
    gone = await open_school(database, bandit_spec("gone"))
    await decide(database, route, 2)
    await learn(database)
    await decide(database, route, 1)
    await redeclare(database, replace(bandit_spec(), bandit=None))
    async with database.transaction() as connection:
        await delete_route(connection, gone.id, START_MS)
    await learn(database)
    async with database.read() as connection:
        assert await bandits.find_states(connection, [route.id, gone.id]) == {}
        assert await bandits.sums_rows(connection, [route.id, gone.id]) == {}
    assert await waiting(database, route) == Waiting(0, None)
    route = await redeclare(database, bandit_spec())
    await learn(database)
    assert await rewards(database, route) == {"new": (3, 3.0)}


async def test_gateways_are_told_every_ten_seconds(database: Database) -> None:
    """Of the first that a route has learnt at once, then ten seconds after the last time, and of nothing
    new not at all; a clock that was set back holds nothing up."""
    route = await open_school(database)
    learner, before = Learner(database), await version(database)
    told_at: list[int] = []
    for second in range(26):
        now_ms = LATER_MS + second * 1_000
        if second in (0, 1, 2, 13):
            await decide(database, route, 1)
            await learn(database, now_ms)
        await learner.publish(now_ms)
        if await version(database) > before:
            before = await version(database)
            told_at.append(second)
    assert told_at == [0, 10, 20]
    await decide(database, route, 1)
    await learn(database, LATER_MS)
    await learner.publish(START_MS)
    assert await version(database) == before + 1
    await open_school(database, bandit_spec("second"))
    await learner.publish(START_MS + 1)
    assert await version(database) == before + 3
