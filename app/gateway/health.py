"""Is an arm worth asking? Judged on each worker, by nothing but how the arm's own attempts ended.

An arm that fails is ejected for a while; then one probe at a time decides whether it comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from math import inf

from msgspec.structs import replace

from routing.types import Arm, Ejection, Role, Route, Upstream

_BUCKETS = 10
"""How many steps the window of the failure rate slides in."""

_LEAST_LEASE_SECONDS = 1.0


class Admission(StrEnum):
    """Whether an attempt may be made on an arm now."""

    YES = "yes"
    PROBE = "probe"
    NO = "no"


class Condition(StrEnum):
    """How an arm is, for people and metrics. Probing: its time is over, it has to show itself well."""

    WELL = "well"
    EJECTED = "ejected"
    PROBING = "probing"
    FAILING_CHECKS = "failing_checks"


_YES, _PROBE, _NO = Admission.YES, Admission.PROBE, Admission.NO


class ArmHealth:
    """How one arm does on one worker. All times are monotonic seconds.

    An attempt is known by `begun`, the `now` at which it was admitted: what began before the arm was barred
    says nothing about the time after it, so results count only from `well_since` on, which is never while the
    arm is barred. The one exception is the probe.

    `barred`: read first, and only then is it worth calling `admit`. `ejections`: how often it was ejected,
    failed probes included.
    """

    __slots__ = (
        "_bucket_ends",
        "_failures",
        "_is_ejected",
        "_lease",
        "_past",
        "_past_failures",
        "_past_successes",
        "_probe_begun",
        "_steps",
        "_successes",
        "_width",
        "barred",
        "ejected_until",
        "ejections",
        "failures_in_row",
        "passes_checks",
        "rules",
        "well_since",
    )

    def __init__(self, rules: Ejection, lease_seconds: float = 10.0) -> None:
        self.barred = False
        self.well_since = -inf
        self.failures_in_row = 0
        self.ejected_until = -inf
        self.ejections = 0
        self.passes_checks = True
        self.rules = rules
        self._lease = lease_seconds
        self._width = rules.interval_ms / 1000 / _BUCKETS
        self._is_ejected = False
        self._steps = 0
        self._probe_begun = -inf
        self._clear()

    def __repr__(self) -> str:
        until = f"ejected until {self.ejected_until:.3f}"
        states = [until] if self._is_ejected else []
        states += [] if self.passes_checks else ["failing its checks"]
        failed, total = self._past_failures + self._failures, self.lately
        return (
            f"<ArmHealth {' and '.join(states) or 'well'}, {self.failures_in_row} failures in a row, "
            f"{failed} of {total} failed lately, {self.ejections} ejections>"
        )

    @property
    def lately(self) -> int:
        """How many results the window holds, as it stood at the last of them."""
        return self._past_successes + self._successes + self._past_failures + self._failures

    def apply(self, rules: Ejection, lease_seconds: float) -> None:
        """Judges by these rules from now on. An ejection under way ends when it was to end.

        A probe of which nothing is heard for `lease_seconds` is given up, and another one may go.
        """
        if rules.interval_ms != self.rules.interval_ms:
            self._clear_window()
            self._width = rules.interval_ms / 1000 / _BUCKETS
        self.rules = rules
        self._lease = lease_seconds

    def admit(self, now: float) -> Admission:
        """Whether an attempt may begin now. Whoever gets PROBE has to report how it ended."""
        if not self.barred:
            return _YES
        if not self.would_admit(now):
            return _NO
        self._probe_begun = now
        return _PROBE

    def would_admit(self, now: float) -> bool:
        """Whether an attempt might begin now, without beginning one."""
        if not self.barred:
            return True
        return self.passes_checks and now >= self.ejected_until and now >= self._probe_begun + self._lease

    def succeeded(self, begun: float, now: float) -> bool:
        """The arm answered an attempt. Whether that ended its ejection."""
        if begun >= self.well_since:
            if now >= self._bucket_ends:
                self._turn(now)
            self._successes += 1
            self.failures_in_row = 0
            return False
        if begun != self._probe_begun:
            return False
        self._is_ejected = False
        self._probe_begun = -inf
        self._open(now)
        return True

    def failed(self, begun: float, now: float) -> bool:
        """The arm failed an attempt. Whether it is ejected for that."""
        if begun < self.well_since:
            if begun != self._probe_begun:
                return False
            self._eject(now)
            return True
        if now >= self._bucket_ends:
            self._turn(now)
        self._failures += 1
        self.failures_in_row += 1
        if not self._is_too_much():
            return False
        self._forget_steps(now - self.well_since)
        self._eject(now)
        return True

    def abandoned(self, begun: float) -> None:
        """An attempt ended without a result: the caller left, or no connection was free."""
        if begun == self._probe_begun:
            self._probe_begun = -inf

    def set_well(self, well: bool, now: float) -> None:
        """What the active checks have come to. Passing them ends no ejection: only a probe does."""
        if well == self.passes_checks:
            return
        self.passes_checks = well
        if not well:
            self._bar()
        elif not self._is_ejected:
            self._open(now)

    def condition(self, now: float) -> Condition:
        """How the arm is now."""
        if not self.passes_checks:
            return Condition.FAILING_CHECKS
        if not self._is_ejected:
            return Condition.WELL
        return Condition.EJECTED if now < self.ejected_until else Condition.PROBING

    def _is_too_much(self) -> bool:
        rules, total = self.rules, self.lately
        if self.failures_in_row >= rules.consecutive_failures:
            return True
        failed = self._past_failures + self._failures
        return total >= rules.minimum_requests and failed * 100 >= rules.failure_percent * total

    def _eject(self, now: float) -> None:
        if self._out_seconds(self._steps) < self.rules.longest_ms / 1000:
            self._steps += 1
        self.ejections += 1
        self.ejected_until = now + self._out_seconds(self._steps)
        self._is_ejected = True
        self._probe_begun = -inf
        self._bar()

    def _bar(self) -> None:
        self.barred = True
        self.well_since = inf

    def _open(self, now: float) -> None:
        """Admits everybody again, unless the checks say otherwise; what was before is forgotten."""
        self._clear()
        self.barred = not self.passes_checks
        self.well_since = inf if self.barred else now

    def _out_seconds(self, steps: int) -> float:
        return min(self.rules.base_ms * steps, self.rules.longest_ms) / 1000

    def _forget_steps(self, well_seconds: float) -> None:
        """One step less for each stay outside that it has since been well for as long as."""
        while self._steps and well_seconds >= (out := self._out_seconds(self._steps)):
            well_seconds -= out
            self._steps -= 1

    def _clear(self) -> None:
        self.failures_in_row = 0
        self._clear_window()

    def _clear_window(self) -> None:
        self._past: deque[tuple[int, int]] = deque(maxlen=_BUCKETS - 1)
        self._past_successes = self._past_failures = 0
        self._successes = self._failures = 0
        self._bucket_ends = -inf

    def _turn(self, now: float) -> None:
        """Begins another bucket of the window, and drops what has slid out of it."""
        width = self._width
        late = now - self._bucket_ends
        if late >= width * (_BUCKETS - 1):
            self._clear_window()
            self._bucket_ends = now + width
            return
        passed = int(late / width) + 1
        self._past.append((self._successes, self._failures))
        self._past.extend([(0, 0)] * (passed - 1))
        self._past_successes = sum(successes for successes, _ in self._past)
        self._past_failures = sum(failures for _, failures in self._past)
        self._successes = self._failures = 0
        self._bucket_ends += passed * width


class Fleet:
    """The health of every arm of a worker, by arm id: `known`.

    An arm keeps its health from snapshot to snapshot, as long as it lives at the same URL.
    """

    def __init__(self) -> None:
        self.known: dict[int, ArmHealth] = {}
        self._urls: dict[int, str] = {}

    def __repr__(self) -> str:
        barred = sum(health.barred for health in self.known.values())
        return f"<Fleet of {len(self.known)} arms, {barred} barred>"

    def adopt(self, routes: Iterable[Route]) -> None:
        """Takes over the arms and rules of another snapshot, and forgets the arms that are not in it."""
        before, urls = self.known, self._urls
        self.known, self._urls = {}, {}
        for route in routes:
            for arm in route.arms:
                rules, lease = _rules_of(arm, route.upstream), _lease_seconds(route.upstream)
                health = before.get(arm.id)
                if health is None or urls[arm.id] != arm.url:
                    health = ArmHealth(rules, lease)
                else:
                    health.apply(rules, lease)
                self.known[arm.id], self._urls[arm.id] = health, arm.url

    def of(self, arm_id: int) -> ArmHealth:
        """The health of an arm; one that is in no snapshot any more is taken for well, and not remembered."""
        return self.known.get(arm_id) or ArmHealth(Ejection())


def may_be_asked(arm: Arm, health: ArmHealth, now: float) -> bool:
    """Whether an attempt may be made on this arm now. The champion may always be asked: there is nobody else.

    Its health is measured all the same, and shown: it gets its turn as a probe like any arm.
    """
    return health.admit(now) is not _NO or arm.role is Role.CHAMPION


def is_kept_waiting(silent_seconds: float, allowed_seconds: float) -> bool:
    """Whether a caller that leaves does so because of the arm: it was silent for a quarter of its time."""
    return silent_seconds * 4 >= allowed_seconds


def _rules_of(arm: Arm, upstream: Upstream) -> Ejection:
    """The champion is asked all the time, so there is no need to look away for longer and longer."""
    rules = upstream.ejection
    return replace(rules, longest_ms=rules.base_ms) if arm.role is Role.CHAMPION else rules


def _lease_seconds(upstream: Upstream) -> float:
    """Within this time an attempt has ended, unless its caller is slow or its answer is a stream."""
    return max(2 * upstream.timeout_ms / 1000, _LEAST_LEASE_SECONDS)
