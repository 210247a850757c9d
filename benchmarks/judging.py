"""How long one judgement takes: 30 days of a sticky route, 64 hash buckets a day and arm."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.figures import Finding, figure
from benchmarks.plan import Plan
from policies.days import Day
from policies.metrics import Metric
from policies.promotion import Evidence, judge
from policies.rollups import ArmCounts, Stratum, Sums
from policies.spec import Policy
from policies.types import Kind
from routing.bucketing import UNIT_BUCKETS

_DAYS = 30
_CALLS = 20
_DAY_MS = 86_400_000


def measure(plan: Plan) -> list[Finding]:
    """Milliseconds a judgement, with the median and range over the rounds."""
    evidence = _evidence(np.random.default_rng(1))
    plan.say("judging")
    return [figure("one judgement", "ms", [_round(evidence) for _ in range(plan.rounds)])]


def _round(evidence: Evidence) -> float:
    started = time.perf_counter()
    for _ in range(_CALLS):
        judge(evidence, Policy())
    return 1000 * (time.perf_counter() - started) / _CALLS


def _evidence(draw: np.random.Generator) -> Evidence:
    strata = tuple(
        Stratum(_day(number), 1, _buckets(draw, 0.050), _buckets(draw, 0.052)) for number in range(_DAYS)
    )
    n = sum(sums.n for stratum in strata for sums in stratum.champion.values())
    counts = ArmCounts(decisions=n, served=n, labelled=n)
    return Evidence(strata, counts, counts, Metric("conversion", Kind.BINARY), sticky=True)


def _day(number: int) -> Day:
    return Day(number * _DAY_MS, (number + 1) * _DAY_MS, str(number))


def _buckets(draw: np.random.Generator, rate: float) -> dict[int, Sums]:
    hits = draw.binomial(100, rate, UNIT_BUCKETS)
    return {bucket: Sums(100, float(hit), float(hit)) for bucket, hit in enumerate(hits)}
