"""Claims about ejection: who is ejected, for how long, and what brings an arm back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.health import Admission, ArmHealth, Condition, is_kept_waiting
from routing.types import Ejection

YES, PROBE, NO = Admission.YES, Admission.PROBE, Admission.NO


def health_of(lease_seconds: float = 4.0, **rules: Any) -> ArmHealth:
    """An arm with small rules: 3 in a row, 10 s out and 10 s more each time, 35 s at most."""
    return ArmHealth(
        Ejection(**{"consecutive_failures": 3, "minimum_requests": 10, "longest_ms": 35_000, **rules}),
        lease_seconds,
    )


def fail(health: ArmHealth, times: int, now: float) -> None:
    """Attempts that begin and fail at once."""
    for _ in range(times):
        health.failed(now, now)


def ejected_at(now: float, **rules: Any) -> ArmHealth:
    """An arm that has just been ejected."""
    health = health_of(**rules)
    fail(health, 3, now)
    assert health.condition(now) is Condition.EJECTED
    return health


def test_an_arm_of_which_nothing_is_known_is_asked() -> None:
    """No results are no failures."""
    health = health_of()
    assert health.admit(0.0) is YES
    assert (health.barred, health.condition(0.0)) == (False, Condition.WELL)


def test_failures_in_a_row_eject() -> None:
    """The third failure in a row ejects, and says so; the first and the second do not."""
    health = health_of()
    assert [health.failed(1.0, 1.5) for _ in range(3)] == [False, False, True]
    assert health.admit(1.5) is NO
    assert (health.barred, health.ejections, health.ejected_until) == (True, 1, 11.5)


def test_the_default_is_five_in_a_row() -> None:
    """An arm that only fails is asked five times by a worker."""
    health, asked = ArmHealth(Ejection()), 0
    while health.admit(float(asked)) is YES:
        health.failed(float(asked), float(asked))
        asked += 1
    assert asked == 5


def test_a_success_interrupts_a_row() -> None:
    """Two failures, a success and two failures are no three in a row."""
    health = health_of()
    fail(health, 2, 0.0)
    assert health.succeeded(0.0, 0.0) is False
    fail(health, 2, 0.0)
    assert health.admit(0.0) is YES


def alternate(health: ArmHealth, times: int, now: float, step: float = 0.0) -> int:
    """A success and a failure by turns, until it is ejected: after how many results, or never (0)."""
    for count in range(times):
        at = now + count * step
        if health.failed(at, at) if count % 2 else health.succeeded(at, at):
            return count + 1
    return 0


def test_a_failure_rate_ejects() -> None:
    """Half of the requests failing is enough, once there were as many as the rules demand."""
    assert alternate(health_of(), 30, 5.0) == 10
    assert alternate(health_of(minimum_requests=17), 30, 5.0) == 18


def test_a_failure_rate_below_the_limit_does_not_eject() -> None:
    """One failure in three is less than half, however many requests there are."""
    health = health_of(failure_percent=50)
    for count in range(3_000):
        now = count / 100
        (health.failed if count % 3 == 2 else health.succeeded)(now, now)
    assert health.ejections == 0


def test_old_results_slide_out_of_the_window() -> None:
    """A good hour hides no bad ten seconds."""
    health = health_of()
    for count in range(36_000):
        health.succeeded(count / 10, count / 10)
    assert 90 <= health.lately <= 101
    fail(health, 2, 3_600.0)
    assert alternate(health, 40, 3_611.0, step=0.1) == 10
    assert health.lately == 10


def test_a_slow_trickle_never_has_the_volume() -> None:
    """Half of the requests fail, one every two seconds: no window holds ten of them."""
    assert alternate(health_of(), 1_000, 0.0, step=2.0) == 0


def test_an_ejected_arm_is_probed_by_one() -> None:
    """Once its time is over, the first request is its probe; the others are not admitted meanwhile."""
    health = ejected_at(0.0)
    assert health.admit(9.999) is NO
    assert health.condition(10.0) is Condition.PROBING
    assert [health.admit(10.0) for _ in range(5)] == [PROBE, NO, NO, NO, NO]


def test_a_good_probe_readmits() -> None:
    """After it everybody is admitted, with a clean record."""
    health = ejected_at(0.0)
    health.admit(10.0)
    assert health.succeeded(10.0, 10.2) is True
    assert (health.admit(10.2), health.failures_in_row, health.lately) == (YES, 0, 0)
    fail(health, 2, 10.2)
    assert health.condition(10.2) is Condition.WELL


def probe_badly(health: ArmHealth) -> float:
    """Fails the next probe at the first moment it may go: for how long the arm is out after it."""
    now = health.ejected_until
    assert health.admit(now) is PROBE
    assert health.failed(now, now) is True
    return health.ejected_until - now


def test_each_failed_probe_ejects_for_longer() -> None:
    """By the base each time, and never for longer than the longest."""
    health = ejected_at(0.0)
    assert [probe_badly(health) for _ in range(5)] == [20.0, 30.0, 35.0, 35.0, 35.0]
    assert health.ejections == 6


def readmit(health: ArmHealth) -> float:
    """Lets the next probe pass: when that was."""
    now = health.ejected_until
    assert health.admit(now) is PROBE
    assert health.succeeded(now, now)
    return now


@pytest.mark.parametrize(
    ("well_seconds", "out_seconds"),
    [(0.0, 35.0), (29.9, 35.0), (30.0, 30.0), (49.9, 30.0), (50.0, 20.0), (60.0, 10.0), (9_999.0, 10.0)],
)
def test_time_well_is_held_in_favour(well_seconds: float, out_seconds: float) -> None:
    """One base less for each stay outside it has been well as long as: 30 s, then 20 s, then 10 s."""
    health = ejected_at(0.0)
    assert [probe_badly(health) for _ in range(2)] == [20.0, 30.0]
    now = readmit(health) + well_seconds
    fail(health, 3, now)
    assert health.ejected_until - now == out_seconds


def test_stays_at_the_longest_are_no_debt() -> None:
    """An arm that was out for days is forgiven as fast as one that reached the longest stay just now."""
    health = ejected_at(0.0)
    for _ in range(1_000):
        probe_badly(health)
    now = readmit(health) + 35.0 + 30.0 + 20.0 + 10.0
    fail(health, 3, now)
    assert health.ejected_until - now == 10.0


def test_late_failures_prolong_nothing() -> None:
    """Two hundred requests were under way when it was ejected: their failures are those it is out for."""
    health = ejected_at(1.0)
    for _ in range(200):
        assert health.failed(0.5, 2.0) is False
    assert (health.ejected_until, health.ejections) == (11.0, 1)
    assert health.admit(11.0) is PROBE
    assert health.failed(0.5, 11.1) is False
    assert health.succeeded(11.0, 11.2) is True
    for _ in range(200):
        assert health.failed(0.5, 11.3) is False
    assert health.admit(11.3) is YES


def test_late_successes_end_nothing() -> None:
    """An answer to a request from before the ejection is not the probe's."""
    health = ejected_at(1.0)
    assert health.succeeded(0.5, 2.0) is False
    assert health.admit(2.0) is NO
    assert health.admit(11.0) is PROBE
    assert health.succeeded(0.5, 11.1) is False
    assert health.admit(11.1) is NO


def test_a_probe_whose_caller_leaves_makes_room_for_another() -> None:
    """And is nothing for or against the arm."""
    health = ejected_at(0.0)
    assert health.admit(10.0) is PROBE
    health.abandoned(9.0)
    assert health.admit(10.5) is NO
    health.abandoned(10.0)
    assert [health.admit(11.0), health.admit(11.0)] == [PROBE, NO]
    assert health.ejections == 1


def test_a_probe_of_which_nothing_is_heard_locks_nobody_out() -> None:
    """After its lease another one may go; what the first one comes to then is no longer heard."""
    health = ejected_at(0.0)
    assert health.admit(10.0) is PROBE
    assert health.admit(13.9) is NO
    assert health.admit(14.0) is PROBE
    assert health.failed(10.0, 14.5) is health.succeeded(10.0, 14.5) is False
    assert health.succeeded(14.0, 15.0) is True


def test_a_probe_that_is_late_still_counts() -> None:
    """As long as no other one has gone in its place."""
    health = ejected_at(0.0)
    assert health.admit(10.0) is PROBE
    assert health.succeeded(10.0, 99.0) is True


def test_a_failing_check_bars_and_a_passing_one_readmits() -> None:
    """While it says no, nobody is asked, not even as a probe; afterwards everybody may be."""
    health = health_of()
    fail(health, 2, 0.0)
    health.set_well(False, 1.0)
    assert (health.admit(1.0), health.condition(1.0)) == (NO, Condition.FAILING_CHECKS)
    assert health.admit(999.0) is NO
    health.set_well(True, 1_000.0)
    assert (health.admit(1_000.0), health.failures_in_row, health.ejections) == (YES, 0, 0)


def test_results_from_before_a_failing_check_do_not_count() -> None:
    """An arm that its check took out is not ejected for requests that were under way."""
    health = health_of()
    health.set_well(False, 1.0)
    fail(health, 5, 0.9)
    health.set_well(True, 2.0)
    for _ in range(5):
        health.failed(0.9, 2.1)
    assert (health.admit(2.1), health.ejections) == (YES, 0)


def test_a_passing_check_ends_no_ejection() -> None:
    """An endpoint that only says 200 does not bring back a model that fails every request."""
    health = ejected_at(0.0)
    health.set_well(False, 1.0)
    health.set_well(True, 2.0)
    assert health.admit(9.0) is NO
    health.set_well(False, 9.5)
    assert health.admit(10.0) is NO
    health.set_well(True, 11.0)
    assert health.admit(11.0) is PROBE


def test_a_good_probe_does_not_overrule_a_failing_check() -> None:
    """The ejection is over, and the arm still barred until its check passes."""
    health = ejected_at(0.0)
    assert health.admit(10.0) is PROBE
    health.set_well(False, 10.1)
    assert health.succeeded(10.0, 10.2) is True
    assert (health.admit(10.3), health.condition(10.3)) == (NO, Condition.FAILING_CHECKS)
    health.set_well(True, 20.0)
    assert health.admit(20.0) is YES


def test_a_check_that_says_the_same_again_changes_nothing() -> None:
    """A row of failures is not forgotten because the check passes once more."""
    health = health_of()
    fail(health, 2, 0.0)
    health.set_well(True, 0.5)
    fail(health, 1, 1.0)
    assert health.admit(1.0) is NO


def test_changed_rules_apply() -> None:
    """From the next result on; what has been counted stands, and so does an ejection under way."""
    health = health_of()
    fail(health, 2, 0.0)
    health.apply(Ejection(consecutive_failures=9), 4.0)
    fail(health, 5, 1.0)
    assert health.admit(1.0) is YES
    health.apply(Ejection(consecutive_failures=8, interval_ms=1_000, base_ms=1_000), 4.0)
    fail(health, 1, 2.0)
    assert health.ejected_until == 3.0
    health.apply(Ejection(base_ms=60_000), 4.0)
    assert health.ejected_until == 3.0


def test_the_state_is_said() -> None:
    """In one line, for whoever looks."""
    health = health_of()
    health.succeeded(0.0, 0.0)
    fail(health, 2, 0.0)
    assert repr(health) == "<ArmHealth well, 2 failures in a row, 2 of 3 failed lately, 0 ejections>"
    fail(health, 1, 0.0)
    health.set_well(False, 1.0)
    assert "ejected until 10.000 and failing its checks" in repr(health)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("ask", "good", "bad", "leave", "silence", "check fails", "check passes")),
        st.sampled_from((0.0, 0.1, 1.0, 5.0, 20.0)),
        st.integers(0, 7),
    ),
    max_size=150,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_whatever_happens_there_is_one_probe_and_no_dead_end(events: list[tuple[str, float, int]]) -> None:
    """Never two probes whose leases run; no stay beyond the longest; in the end it is asked again."""
    health, now, probe = health_of(), 0.0, -1e9
    under_way: list[float] = []
    for what, seconds, which in events:
        now += seconds
        begun = (
            under_way.pop(which % len(under_way)) if under_way and what in ("good", "bad", "leave") else None
        )
        if begun is not None:
            report(health, what, begun, now)
            probe = -1e9 if begun == probe else probe
        elif what == "ask" and (admission := health.admit(now)) is not NO:
            under_way.append(now)
            if admission is PROBE:
                assert now - probe >= 4.0
                probe = now
        elif what.startswith("check"):
            health.set_well(what == "check passes", now)
        assert health.ejected_until - now <= 35.0
        assert health.barred == (health.condition(now) is not Condition.WELL)
    health.set_well(True, now)
    assert health.admit(now + 35.0 + 4.0) is not NO


def report(health: ArmHealth, what: str, begun: float, now: float) -> None:
    """How an attempt ended."""
    if what == "leave":
        health.abandoned(begun)
    else:
        (health.succeeded if what == "good" else health.failed)(begun, now)


def test_a_caller_who_leaves_at_once_is_not_kept_waiting() -> None:
    """A quarter of the time that the arm has is what makes it the arm's doing."""
    assert not is_kept_waiting(0.0, 1.0)
    assert not is_kept_waiting(0.249, 1.0)
    assert is_kept_waiting(0.25, 1.0)
