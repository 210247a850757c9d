"""What an event adds to which sums: day, epoch, assigned arm, hash bucket, deciding or not, late or not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from msgspec.structs import replace as changed

from app.db.routes import StoredRoute
from app.db.tables import DECISIONS
from app.events.tally import Tally
from app.events.types import DecisionEvent
from policies.days import Day
from policies.metrics import ERROR, LATENCY, Metric, Outcome, combine
from policies.rollups import Sums
from policies.spec import Policy
from policies.types import Aggregate, Kind, Missing
from routing.bucketing import unit_bucket
from routing.claims import Claims
from routing.features import Source, SourceKind
from routing.types import Reason
from tests.app.events.books import Account, Books, accounts, values
from tests.app.events.facts import DAY_MS, NEW, NOON_MS, OLD, claims

ONE = claims(1)


def decided(route: StoredRoute, decision: Claims) -> Tally:
    """The tally of one new decision."""
    tally = Tally()
    tally.decided(route, decision)
    return tally


async def test_a_decision_counts_once_and_is_zero_where_silence_is(books: Books) -> None:
    """It is one decision, served by its arm as far as is known; a metric declared so begins with a zero."""
    assert accounts(decided(books.route, ONE).deltas) == {
        Account(NEW, DECISIONS): values(1),
        Account(NEW, "profit"): values(0),
    }


@pytest.mark.parametrize(
    ("served_arm_id", "status", "error", "served"),
    [
        (NEW, 200, False, 1.0),
        (NEW, 503, True, 1.0),
        (OLD, 200, True, 0.0),
        (None, 502, True, 0.0),
        (None, None, True, 0.0),
        (None, 503, None, 0.0),
        (None, None, None, 1.0),
    ],
)
async def test_who_served_is_kept_beside_who_was_assigned(
    books: Books, served_arm_id: int | None, status: int | None, error: bool | None, served: float
) -> None:
    """A fallback, or nobody, served nothing for the assigned arm; who only asked for an arm is believed."""
    tally = decided(books.route, ONE)
    event = DecisionEvent(
        decision=ONE, served_arm_id=served_arm_id, status=status, error=error, latency_ms=None
    )
    tally.observed(books.route, event)
    sums = accounts(tally.deltas)
    assert sums[Account(NEW, DECISIONS)] == Sums(1, served, served)
    assert sums.get(Account(NEW, ERROR)) == (None if error is None else values(float(error)))
    assert Account(NEW, LATENCY) not in sums
    assert {account.arm_id for account in sums} == {NEW}


@pytest.mark.parametrize("reason", Reason)
async def test_only_a_draw_decides(books: Books, reason: Reason) -> None:
    """Forced, killed, failed and certain assignments are counted apart from what the split assigned."""
    deciding = {key.deciding for key in decided(books.route, changed(ONE, reason=reason)).deltas}
    assert deciding == {reason in (Reason.SPLIT, Reason.BANDIT)}


@pytest.mark.parametrize("unit_hash", [0, 63, 64, 2**64 - 1])
async def test_a_sticky_units_sums_are_kept_by_its_hash(books: Books, unit_hash: int) -> None:
    """A unit is in one of 64 buckets; requests that are their own units are all in the first."""
    sticky = decided(books.route, changed(ONE, unit_hash=unit_hash, has_unit=True))
    assert {key.bucket for key in sticky.deltas} == {unit_bucket(unit_hash)}
    alone = decided(books.route, changed(ONE, unit_hash=unit_hash))
    assert {key.bucket for key in alone.deltas} == {0}
    declared = replace(books.route.spec, unit=Source(kind=SourceKind.HEADER, name="X-User-Id"))
    unnamed = decided(replace(books.route, spec=declared), changed(ONE, unit_hash=unit_hash))
    assert {key.bucket for key in unnamed.deltas} == {unit_bucket(unit_hash)}, (
        "a unit of its own, by its draw"
    )


async def test_a_caller_that_left_was_served_by_nobody_else(books: Books) -> None:
    """Nothing is diluted by it, so it does not count against the arm's share of served decisions."""
    tally = Tally()
    event = DecisionEvent(decision=ONE, served_arm_id=None, status=499, error=True, latency_ms=5.0)
    tally.observed(books.route, event)
    assert {key.metric for key in tally.deltas} == {ERROR, LATENCY}


async def test_sums_are_kept_by_the_decisions_own_day_epoch_and_arm(books: Books) -> None:
    """Those of the token, in the route's time zone: evening in New York is the next day in UTC."""
    policy = Policy(timezone="America/New_York")
    route = replace(books.route, spec=replace(books.route.spec, policy=policy))
    decision = changed(ONE, at_ms=NOON_MS + 14 * 3_600_000, epoch=7, arm_id=OLD)
    (key,) = {(key.route_id, key.day, key.epoch, key.arm_id) for key in decided(route, decision).deltas}
    start_ms = NOON_MS - 12 * 3_600_000 + 4 * 3_600_000  # midnight in New York, in summer
    assert key == (1, Day(start_ms, start_ms + DAY_MS, "2024-10-04"), 7, OLD)


@pytest.mark.parametrize(("before_ms", "late"), [(-1, True), (0, True), (1, False)])
async def test_what_belongs_to_a_judged_day_is_late(books: Books, before_ms: int, late: bool) -> None:
    """A day is judged once the frozen time has reached its end."""
    end_ms = NOON_MS + DAY_MS // 2
    route = replace(books.route, frozen_through_ms=end_ms - before_ms)
    assert {key.late for key in decided(route, ONE).deltas} == {late}


def some_outcomes(random: Random) -> list[Outcome]:
    """A decision's outcomes of one metric, in the order in which they arrive."""
    return [
        Outcome(random.randrange(-3, 4), random.randrange(3), random.randrange(3), f"{number}")
        for number in random.sample(range(8), 5)
    ]


@pytest.mark.parametrize("missing", Missing)
@pytest.mark.parametrize("aggregate", Aggregate)
async def test_the_differences_of_outcomes_add_up(
    books: Books, aggregate: Aggregate, missing: Missing
) -> None:
    """However outcomes come, go and are replaced, the sums are those of the value that the last ones give."""
    metric = Metric("profit", Kind.CONTINUOUS, aggregate=aggregate, missing=missing)
    route = replace(books.route, spec=replace(books.route.spec, metrics=(metric,)))
    for seed in range(20):
        outcomes = some_outcomes(Random(seed))
        states = [outcomes[:size] for size in range(len(outcomes) + 1)] + [outcomes[1:]]
        tally = decided(route, ONE)
        for before, after in pairwise(states):
            tally.outcome(route, ONE, metric, before, after)
        value = combine(aggregate, outcomes[1:])
        assert value is not None
        assert accounts(tally.deltas)[Account(NEW, "profit")] == values(value)


@pytest.mark.parametrize(("missing", "silence"), [(Missing.ZERO, values(0)), (Missing.SKIP, None)])
async def test_an_outcome_takes_the_place_of_silence(
    books: Books, missing: Missing, silence: Sums | None
) -> None:
    """With it there is one value, not a zero and a value; an outcome of 0 is a value too."""
    metric = Metric("profit", Kind.CONTINUOUS, missing=missing)
    route = replace(books.route, spec=replace(books.route.spec, metrics=(metric,)))
    tally = decided(route, ONE)
    assert accounts(tally.deltas).get(Account(NEW, "profit")) == silence
    tally.outcome(route, ONE, metric, [], [Outcome(0.0, 1, 1, "a")])
    assert accounts(tally.deltas)[Account(NEW, "profit")] == values(0)
    tally.outcome(route, ONE, metric, [Outcome(0.0, 1, 1, "a")], [Outcome(3.0, 1, 0, "b")])
    assert accounts(tally.deltas)[Account(NEW, "profit")] == values(3)
