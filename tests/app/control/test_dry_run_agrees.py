"""What a dry run says is what a gateway does, whatever the route and the request."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from app.control.dry_runs import DryRun, OverrideStep, explain
from app.control.questions import DryRunDocument, question_of
from app.db.overrides import StoredOverride
from app.gateway.contexts import ContextReader, RequestSubject
from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings
from app.gateway.units import reader_of
from routing.assignment import Asked, Assignment, Plan
from routing.bandit import BanditTerms, Learned, Posterior
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.rules import Condition, Op
from routing.types import TOTAL_BP, Arm, Match, Reason, Role, Route
from routing.weights import lay_out
from tests.app.control.stage import Json

AT_MS = 1_000
ARMS = (
    Arm(id=1, name="old", url="http://a", role=Role.CHAMPION),
    Arm(id=2, name="new", url="http://b", role=Role.CHALLENGER),
    Arm(id=3, name="third", url="http://c", role=Role.CHALLENGER),
    Arm(id=4, name="dark", url="http://d", role=Role.SHADOW),
)
CONTEXT = (
    Feature(
        name="country",
        source=Source(kind=SourceKind.QUERY, name="country"),
        type=FeatureType.CATEGORICAL,
        values=("DE", "FR"),
    ),
    Feature(
        name="hour",
        source=Source(kind=SourceKind.HEADER, name="X-Hour"),
        type=FeatureType.NUMERIC,
        maximum=23,
    ),
    Feature(name="beta", source=Source(kind=SourceKind.JSON, name="/beta"), type=FeatureType.BOOLEAN),
)
UNIT = Source(kind=SourceKind.HEADER, name="X-User-Id")

_conditions = st.one_of(
    st.builds(
        Condition,
        attribute=st.sampled_from(["unit", "header.X-App", "context.country", "path", "method"]),
        op=st.sampled_from([Op.EQUALS, Op.NOT_EQUALS, Op.STARTS_WITH, Op.CONTAINS]),
        values=st.sampled_from(["u1", "u", "DE", "/r/bid", "GET", "2.0.0"]).map(lambda value: (value,)),
    ),
    st.builds(
        Condition,
        attribute=st.sampled_from(["context.hour", "header.x-hour"]),
        op=st.sampled_from([Op.LT, Op.GTE]),
        values=st.sampled_from([(5.0,), (12.0,)]),
    ),
    st.builds(
        Condition,
        attribute=st.sampled_from(["unit", "context.beta", "header.x-hour"]),
        op=st.just(Op.EXISTS),
        values=st.sampled_from([(), (False,)]),
    ),
)
_overrides = st.builds(
    StoredOverride,
    id=st.just(0),
    arm=st.just(""),
    arm_id=st.integers(1, 4),
    when=st.lists(_conditions, max_size=2).map(tuple),
    share_bp=st.sampled_from([1, 3_000, TOTAL_BP, TOTAL_BP]),
    priority=st.integers(0, 2),
    expires_at_ms=st.sampled_from([None, None, AT_MS, AT_MS + 1]),
    author=st.just("ann"),
    reason=st.just("because"),
    created_at_ms=st.just(0),
)
_headers = st.fixed_dictionaries(
    {},
    optional={
        "X-App": st.sampled_from(["2.0.0", "u1é"]),
        "x-hour": st.sampled_from(["3", "13", "noon"]),
        "X-User-Id": st.sampled_from(["u1", "u2", "u3", ""]),
        "Kingmaker-Force-Arm": st.sampled_from(["new", "dark", "none"]),
    },
)
_requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "post"]),
        "path": st.sampled_from(["/r/bid", "/r/bid/x?country=DE", "/r/other?country=NZ&country=DE"]),
        "headers": _headers,
    }
)


def numbered(overrides: list[StoredOverride]) -> list[StoredOverride]:
    """With ids, in the order of their making, and then in that of precedence."""
    fresh = [
        StoredOverride(**{**_fields(each), "id": number, "arm": ARMS[each.arm_id - 1].name})
        for number, each in enumerate(overrides, 1)
    ]
    return sorted(fresh, key=lambda override: (-override.priority, override.id))


def _fields(override: StoredOverride) -> dict[str, Any]:
    return {name: getattr(override, name) for name in StoredOverride.__slots__}


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, list[StoredOverride]]:
    """A route as gateways have it, and its overrides."""
    new_bp, third_bp = draw(st.sampled_from([(0, 0), (1_000, 0), (5_000, 5_000), (2_500, 2_500)]))
    stored = numbered(draw(st.lists(_overrides, max_size=5)))
    route = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=ARMS,
        shares=lay_out((), {1: TOTAL_BP - new_bp - third_bp, 2: new_bp, 3: third_bp}, 1),
        salt="1:1",
        epoch=1,
        unit=draw(st.sampled_from([None, UNIT])),
        context=draw(st.sampled_from([(), CONTEXT])),
        overrides=tuple(override.rule for override in stored),
        allow_force=draw(st.booleans()),
        kill_switch=draw(st.sampled_from([False, False, False, True])),
    )
    return Plan(route), stored


def assigned(plan: Plan, described: Json, entropy: int) -> Assignment:
    """What a gateway assigns, read off the wire as `app.gateway.facts` does it."""
    lines = [f"{described['method']} {described['path']} HTTP/1.1", "Host: ads.example"]
    lines += [f"{name}: {value}" for name, value in described["headers"].items()]
    request = Request()
    request.read_head("\r\n".join(lines).encode(), GatewaySettings())
    unit = None if plan.route.unit is None else reader_of(plan.route.unit)(request)
    context = None if plan.encoder is None else ContextReader(plan.encoder).read(request)
    forced = None if request.forced is None else request.forced.decode("latin-1")
    subject = RequestSubject(request, unit, context)
    return plan.assign(Asked(unit, entropy, forced, AT_MS, entropy, subject, context))


def dry_run(plan: Plan, stored: list[StoredOverride], described: Json) -> DryRun:
    """What is said of the same request."""
    return explain(plan, question_of(DryRunDocument(**described), plan, AT_MS), stored)


def named(assignment: Assignment) -> dict[str, float]:
    """The probabilities of an assignment by the arms' names."""
    return {ARMS[arm_id - 1].name: bp / TOTAL_BP for arm_id, bp in assignment.probabilities.items()}


@settings(max_examples=80)
@given(built=plans(), described=_requests, entropy=st.integers(0, 2**64 - 1))
def test_a_dry_run_says_what_a_gateway_does(
    built: tuple[Plan, list[StoredOverride]], described: Json, entropy: int
) -> None:
    """Arm, reason, propensity, probabilities, override; where a draw decides, it is among what may come."""
    plan, stored = built
    said, done = dry_run(plan, stored, described), assigned(plan, described, entropy)
    assert sum(said.probabilities.values()) == pytest.approx(1)
    assert said.probabilities[done.arm.name] > 0
    if said.reason is not None:
        assert (said.reason, said.override) == (done.reason, done.override_id)
        assert said.probabilities == named(done)
    if said.arm is not None:
        assert (said.arm, said.propensity) == (done.arm.name, done.propensity_bp / TOTAL_BP)
    assert said.arm is not None or said.unit is None


@settings(max_examples=40)
@given(built=plans(), described=_requests)
def test_the_steps_are_the_trace_in_order(built: tuple[Plan, list[StoredOverride]], described: Json) -> None:
    """Each override once, in order, with what came of it; one step at most matches, and tells the reason."""
    plan, stored = built
    said = dry_run(plan, stored, described)
    steps = said.steps[2:-1]
    assert [step.override for step in steps if isinstance(step, OverrideStep)] == [each.id for each in stored]
    decisive = [step.outcome in ("matched", "on") for step in said.steps]
    drawn = [step.outcome == "drawn" for step in said.steps]
    assert sum(decisive) == (0 if any(drawn) else 1)
    if said.reason is Reason.KILL_SWITCH:
        assert decisive[0]
    if said.reason is Reason.FORCED:
        assert decisive[1]
    if said.reason in (Reason.SPLIT, Reason.STATIC):
        assert decisive[-1] or drawn[-1]
    before = said.reason in (Reason.KILL_SWITCH, Reason.FORCED)
    for step in steps:
        assert isinstance(step, OverrideStep)
        if step.arm == "dark":
            assert step.outcome == "arm_not_serving"
        elif step.outcome == "matched":
            assert (said.override, said.arm, said.reason) == (step.override, step.arm, Reason.OVERRIDE)
        assert (step.miss is None) == (step.outcome != "condition")
        assert not (before and step.outcome in ("matched", "drawn"))


def test_what_a_bandit_has_learnt_is_said_as_chances() -> None:
    """The arm is drawn for each decision, whoever asks; overrides and forced arms are as certain as ever."""
    learned = tuple(
        Posterior(arm_id=arm_id, rewards=500, successes=float(ones), failures=float(500 - ones))
        for arm_id, ones in ((1, 50), (2, 60), (3, 40))
    )
    pinned = StoredOverride(
        id=1,
        arm="third",
        arm_id=3,
        when=(Condition(attribute="unit", op=Op.EQUALS, values=("u1",)),),
        share_bp=TOTAL_BP,
        priority=1,
        expires_at_ms=None,
        author="ann",
        reason="because",
        created_at_ms=0,
    )
    route = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=ARMS,
        shares=lay_out((), {1: TOTAL_BP}, 1),
        salt="1:1",
        epoch=1,
        unit=UNIT,
        overrides=(pinned.rule,),
        bandit=BanditTerms(is_binary=True, learned=Learned(at_ms=0, schema=0, arms=learned)),
    )
    plan = Plan(route)
    assert plan.fault is None
    for unit in ("u1", "u2", None):
        headers = {} if unit is None else {"X-User-Id": unit}
        described = {"method": "GET", "path": "/r/bid", "headers": headers}
        said, done = dry_run(plan, [pinned], described), assigned(plan, described, 7)
        assert (said.reason, said.probabilities) == (done.reason, named(done))
        assert said.arm == ("third" if unit == "u1" else None)
        assert said.reason is (Reason.OVERRIDE if unit == "u1" else Reason.BANDIT)
        assert said.steps[-1].outcome == ("preceded" if unit == "u1" else "drawn")


def test_chances_are_those_of_many_requests() -> None:
    """Without a unit, shares of overrides and the split are drawn: as often as the dry run says."""
    thin = StoredOverride(1, "new", 2, (), 3_000, 2, None, "ann", "because", 0)
    stored = [thin, StoredOverride(2, "third", 3, (), 5_000, 1, None, "ann", "because", 0)]
    route = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=ARMS,
        shares=lay_out((), {1: 6_000, 2: 4_000}, 1),
        salt="1:1",
        epoch=1,
        overrides=tuple(override.rule for override in stored),
    )
    plan, described = Plan(route), {"method": "GET", "path": "/r/bid", "headers": {}}
    said = dry_run(plan, stored, described)
    assert said.probabilities == pytest.approx({"new": 0.3 + 0.35 * 0.4, "third": 0.35, "old": 0.35 * 0.6})
    assert (said.arm, said.reason, said.override, said.propensity) == (None, None, None, None)
    chances = [getattr(step, "chance", None) for step in said.steps]
    assert chances == [None, None, 0.3, 0.35, None]
    random = Random(7)
    seen = Counter(assigned(plan, described, random.getrandbits(64)).arm.name for _ in range(20_000))
    expected = [20_000 * said.probabilities[name] for name in ("new", "third", "old")]
    assert chisquare([seen[name] for name in ("new", "third", "old")], expected).pvalue > 0.001
