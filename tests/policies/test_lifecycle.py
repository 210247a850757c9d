"""What may happen to a rollout, what may not, and what stays true whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import IllegalTransition
from policies.lifecycle import (
    Judged,
    Rollout,
    Trial,
    after_verdict,
    approve,
    begin,
    pause,
    promote,
    resume,
    roll_back,
    set_kill_switch,
    set_split,
    start,
    with_arms,
    withdraw,
)
from policies.promotion import Streak
from policies.spec import Advance, Approval, Policy
from policies.types import Action, Phase, Verdict
from routing.errors import BadWeights

DAY = 86_400_000
ALL_A = {"a": 10_000, "b": 0, "c": 0}
TRIAL_OF_B = {"a": 9_000, "b": 1_000, "c": 0}
TWO_TRIALS = {"a": 7_000, "b": 2_000, "c": 1_000}
RAMP = Policy(ramp_bp=(2_500, 5_000, 10_000))
FULL = Streak(winning=3)


def on_trial(weights: Mapping[str, int] = TRIAL_OF_B) -> Rollout:
    """A rollout that begins at 0 with champion a."""
    return begin("a", weights, now_ms=0)


def late() -> Rollout:
    """After b was promoted, c was tried and taken off again."""
    return roll_back(start(promote(on_trial(), "b", 1), "c", 1_000, 2), None, 3)


def day(number: int, action: Action, verdict: Verdict | None = None, arm: str = "b") -> Judged:
    """What was found on a day (1, 2, …); the verdict goes with the action unless said."""
    fitting = {Action.STEP: Verdict.WIN, Action.ROLLBACK: Verdict.LOSE}.get(action, Verdict.INCONCLUSIVE)
    streak = FULL if action is Action.STEP else Streak()
    return Judged(arm, verdict or fitting, streak, action, days=number, day_end_ms=number * DAY)


def play(rollout: Rollout, policy: Policy, *days: Judged) -> tuple[Rollout, list[Action]]:
    """Each day is judged an hour after its end."""
    actions = []
    for judged in days:
        rollout, action = after_verdict(rollout, policy, judged, judged.day_end_ms + 3_600_000)
        actions.append(action)
    return rollout, actions


def phase_of(rollout: Rollout, arm: str) -> Phase:
    """The phase of an arm's trial, which it must have."""
    trial = rollout.trial(arm)
    assert trial is not None
    return trial.phase


def test_a_route_begins_with_trials_for_those_that_hold_a_share() -> None:
    """And is idle where the champion has everything."""
    assert on_trial(ALL_A).phase is Phase.IDLE
    rollout = on_trial()
    assert (rollout.phase, rollout.epoch, rollout.salt_number) == (Phase.TRIAL, 1, 1)
    assert [trial.arm for trial in rollout.active_trials] == ["b"]
    assert rollout.trial("b") == Trial("b", Phase.TRIAL, started_at_ms=0, started_epoch=1, changed_at_ms=0)


def test_the_largest_trial_leads() -> None:
    """Its phase is the rollout's."""
    assert [trial.arm for trial in on_trial({**TWO_TRIALS, "b": 500, "a": 8_500}).active_trials] == ["c", "b"]


def test_a_promotion_swaps_roles() -> None:
    """The challenger gets all traffic and is champion, the old champion is remembered, other trials end."""
    rollout = promote(on_trial(TWO_TRIALS), "b", now_ms=5)
    assert (rollout.champion, rollout.previous_champion) == ("b", "a")
    assert rollout.weights == {"a": 0, "b": 10_000, "c": 0}
    assert (rollout.phase, phase_of(rollout, "b"), phase_of(rollout, "c")) == (
        Phase.PROMOTED,
        Phase.PROMOTED,
        Phase.INCONCLUSIVE,
    )
    assert not rollout.suspended
    assert rollout.epoch == 2


def test_a_promotion_without_a_name_means_the_one_on_trial() -> None:
    """And an arm that was not on trial may be promoted by name."""
    assert promote(on_trial(), None, 5).champion == "b"
    assert phase_of(promote(on_trial(ALL_A), "c", 5), "c") is Phase.PROMOTED


def test_a_rollback_returns_the_share_to_the_champion() -> None:
    """Other trials keep theirs, and automatic steps wait for the person who intervened."""
    rollout = roll_back(on_trial(TWO_TRIALS), "b", now_ms=5)
    assert rollout.weights == {"a": 9_000, "b": 0, "c": 1_000}
    assert (phase_of(rollout, "b"), phase_of(rollout, "c")) == (Phase.ROLLED_BACK, Phase.TRIAL)
    assert rollout.suspended
    assert not roll_back(on_trial(), None, 5).suspended


def test_a_rollback_after_a_promotion_restores_the_champion_before() -> None:
    """Once: then there is nothing left to go back to."""
    restored = roll_back(promote(on_trial(), "b", 5), None, now_ms=9)
    assert (restored.champion, restored.previous_champion) == ("a", None)
    assert restored.weights == ALL_A
    assert (restored.phase, restored.changed_at_ms) == (Phase.ROLLED_BACK, 9)
    with pytest.raises(IllegalTransition, match="nothing to roll back"):
        roll_back(restored, None, 10)


def test_whoever_is_late_with_a_rollback_dethrones_nobody() -> None:
    """Another challenger came after the promotion and is gone again: the champion has to be named."""
    assert roll_back(late(), "b", 9).champion == "a"


def test_a_breached_guardrail_withdraws_also_from_suspended_steps() -> None:
    """Guardrails stay live while a person has the wheel; with nobody left on trial nothing is suspended."""
    one = withdraw(pause(on_trial()), "b", Phase.ROLLED_BACK, 5)
    assert (one.weights, one.suspended, one.phase) == (ALL_A, False, Phase.ROLLED_BACK)
    assert withdraw(pause(on_trial(TWO_TRIALS)), "b", Phase.ROLLED_BACK, 5).suspended


def test_a_ramp_goes_step_by_step_to_promotion() -> None:
    """10 %, 25 %, 50 %, all: the champion pays, each step is a new epoch, and evidence counts from the
    start."""
    rollout, actions = play(on_trial(), RAMP, day(7, Action.STEP), day(8, Action.HOLD))
    assert actions == [Action.STEP, Action.HOLD]
    assert (rollout.weights["a"], rollout.weights["b"], rollout.epoch) == (7_500, 2_500, 2)
    assert phase_of(rollout, "b") is Phase.RAMPING
    rollout, actions = play(rollout, RAMP, day(9, Action.STEP), day(11, Action.STEP))
    assert actions == [Action.STEP, Action.PROMOTE]
    assert (rollout.champion, rollout.epoch) == ("b", 4)
    trial = rollout.trial("b")
    assert trial is not None
    assert (trial.started_epoch, trial.judged_days, trial.judged_through_ms) == (1, 11, 11 * DAY)


def test_a_step_needs_a_day_judged_at_the_present_share() -> None:
    """A day that ended before the share changed says nothing about the new one, whenever it matures."""
    rollout, _ = play(on_trial(), RAMP, day(7, Action.STEP))
    late = replace(day(7, Action.STEP), day_end_ms=7 * DAY - 1)
    assert after_verdict(rollout, RAMP, late, 20 * DAY)[1] is Action.HOLD


def test_a_step_needs_its_bake_time() -> None:
    """Counted from the last change of the share, to the millisecond."""
    policy = replace(RAMP, bake_ms=10 * DAY)
    assert after_verdict(on_trial(), policy, day(7, Action.STEP), 10 * DAY - 1)[1] is Action.HOLD
    assert after_verdict(on_trial(), policy, day(7, Action.STEP), 10 * DAY)[1] is Action.STEP


def test_one_challenger_ramps_at_a_time() -> None:
    """While b ramps or waits for approval, c's step waits; when b is gone it may go."""
    ramping, _ = play(on_trial(TWO_TRIALS), RAMP, day(7, Action.STEP))
    waiting, _ = play(on_trial(TWO_TRIALS), replace(RAMP, approval=Approval.MANUAL), day(7, Action.STEP))
    for busy in (ramping, waiting):
        held, actions = play(busy, RAMP, day(8, Action.STEP, arm="c"))
        assert actions == [Action.HOLD]
        freed = withdraw(held, "b", Phase.ROLLED_BACK, 8 * DAY)
        assert play(freed, RAMP, day(9, Action.STEP, arm="c"))[1] == [Action.STEP]


@pytest.mark.parametrize(
    ("action", "phase"), [(Action.ROLLBACK, Phase.ROLLED_BACK), (Action.END, Phase.INCONCLUSIVE)]
)
def test_a_lost_or_endless_trial_gives_its_share_back(action: Action, phase: Phase) -> None:
    """At once, and the champion stays."""
    rollout, actions = play(on_trial(), RAMP, day(8, action))
    assert actions == [action]
    assert (rollout.champion, rollout.weights, rollout.phase) == ("a", ALL_A, phase)


@pytest.mark.parametrize("action", [Action.STEP, Action.ROLLBACK, Action.END])
@pytest.mark.parametrize(
    "stop", [pause, lambda rollout: set_kill_switch(rollout, on=True)], ids=["paused", "kill switch"]
)
def test_while_a_person_has_intervened_only_the_streak_moves(
    stop: Callable[[Rollout], Rollout], action: Action
) -> None:
    """Steps that are suspended, and a kill switch that sends all to the champion, hold every automatic step:
    nobody may become champion under a kill switch by itself."""
    before = stop(on_trial())
    after, actions = play(before, Policy(), day(8, action))
    assert actions == [Action.HOLD]
    assert (after.champion, after.weights, after.epoch) == (before.champion, before.weights, before.epoch)
    trial = after.trial("b")
    assert trial is not None
    assert (trial.judged_days, trial.judged_through_ms) == (8, 8 * DAY)
    assert trial.streak == day(8, action).streak


def test_after_resuming_steps_go_on() -> None:
    """With the streak that was kept meanwhile."""
    held, _ = play(pause(on_trial()), RAMP, day(7, Action.STEP))
    assert play(resume(held), RAMP, day(8, Action.STEP))[1] == [Action.STEP]
    dark, _ = play(set_kill_switch(on_trial(), on=True), RAMP, day(7, Action.STEP))
    assert play(set_kill_switch(dark, on=False), RAMP, day(8, Action.STEP))[1] == [Action.STEP]


def test_manual_approval_waits_until_a_person_takes_the_step() -> None:
    """Each earned step waits, keeps waiting while it stays earned, and is taken by approval alone."""
    policy = Policy(ramp_bp=(5_000, 10_000), approval=Approval.MANUAL)
    rollout, actions = play(on_trial(), policy, day(7, Action.STEP), day(8, Action.STEP))
    assert actions == [Action.AWAIT_APPROVAL, Action.AWAIT_APPROVAL]
    assert (rollout.phase, rollout.weights) == (Phase.AWAITING_APPROVAL, TRIAL_OF_B)
    rollout, action = approve(rollout, policy, 9 * DAY)
    assert (action, rollout.share("b"), rollout.phase) == (Action.STEP, 5_000, Phase.RAMPING)
    rollout, actions = play(rollout, policy, day(10, Action.STEP))
    assert actions == [Action.AWAIT_APPROVAL]
    rollout, action = approve(rollout, policy, 11 * DAY)
    assert (action, rollout.champion, rollout.phase) == (Action.PROMOTE, "b", Phase.PROMOTED)


def test_a_step_that_is_no_longer_earned_does_not_wait() -> None:
    """A tie while it waits returns the trial to where it was: on trial, or ramping after a step."""
    policy = Policy(ramp_bp=(5_000, 10_000), approval=Approval.MANUAL)
    waiting, _ = play(on_trial(), policy, day(7, Action.STEP))
    fallen, _ = play(waiting, policy, day(8, Action.HOLD))
    assert fallen.phase is Phase.TRIAL
    with pytest.raises(IllegalTransition, match="no step waits"):
        approve(fallen, policy, 9 * DAY)
    stepped, _ = approve(waiting, policy, 9 * DAY)
    again, _ = play(stepped, policy, day(10, Action.STEP), day(11, Action.HOLD))
    assert again.phase is Phase.RAMPING


@pytest.mark.parametrize(
    ("verdict", "action"),
    [
        (Verdict.WIN, Action.STEP),
        (Verdict.TIE, Action.STEP),
        (Verdict.INCONCLUSIVE, Action.STEP),
        (Verdict.INSUFFICIENT_DATA, Action.HOLD),
        (Verdict.UNHEALTHY, Action.HOLD),
        (Verdict.ERROR, Action.HOLD),
        (Verdict.LOSE, Action.HOLD),
    ],
)
def test_advance_healthy_steps_on_health_but_promotes_on_wins(verdict: Verdict, action: Action) -> None:
    """Steps before the last need health and no losing verdict, the last needs the full streak."""
    policy = replace(RAMP, advance=Advance.HEALTHY)
    assert play(on_trial(), policy, day(2, Action.HOLD, verdict))[1] == [action]
    assert play(on_trial(), RAMP, day(2, Action.HOLD, verdict))[1] == [Action.HOLD]
    last = on_trial({"a": 5_000, "b": 5_000, "c": 0})
    assert play(last, policy, day(2, Action.HOLD, verdict))[1] == [Action.HOLD]
    assert play(last, policy, day(9, Action.STEP))[1] == [Action.PROMOTE]


def test_a_person_who_divides_traffic_suspends_steps_in_the_middle_of_a_trial() -> None:
    """The trial goes on with its evidence; its bake time starts again where its share changed."""
    changed = set_split(on_trial(), {"a": 8_000, "b": 2_000}, now_ms=5)
    assert changed.suspended
    assert changed.trial("b") == Trial("b", Phase.TRIAL, 0, 1, changed_at_ms=5)
    assert set_split(changed, {"a": 8_000, "b": 2_000}, 9).trial("b") == changed.trial("b")
    assert not set_split(on_trial(ALL_A), TRIAL_OF_B, 5).suspended
    ended = set_split(changed, {"a": 10_000}, 6)
    assert (ended.phase, ended.suspended) == (Phase.IDLE, False)


def test_fresh_trials_draw_their_units_anew() -> None:
    """The salt changes when a trial starts where nobody else was on trial, and only then."""
    idle = on_trial(ALL_A)
    first = start(idle, "b", 1_000, 5)
    assert (idle.salt_number, first.salt_number) == (1, 2)
    assert start(first, "c", 1_000, 6).salt_number == 2
    assert start(roll_back(first, "b", 7), "b", 500, 8).salt_number == 3


def test_a_trial_that_starts_again_starts_from_nothing() -> None:
    """No streak and no evidence of its first run."""
    lost, _ = play(on_trial(), RAMP, day(8, Action.ROLLBACK))
    again = start(lost, "b", 500, 20 * DAY)
    assert again.trial("b") == Trial("b", Phase.TRIAL, 20 * DAY, again.epoch, 20 * DAY)


def test_against_another_champion_trials_start_anew() -> None:
    """A streak was won against one champion: who names another begins every trial again, suspended."""
    policy = replace(RAMP, approval=Approval.MANUAL)
    waiting, _ = play(on_trial(TWO_TRIALS), policy, day(7, Action.STEP))
    crowned = set_split(waiting, {"a": 0, "b": 2_000, "c": 8_000}, 8 * DAY, champion="c")
    assert (crowned.champion, crowned.previous_champion, crowned.suspended) == ("c", "a", True)
    assert crowned.trials == (Trial("b", Phase.TRIAL, 8 * DAY, crowned.epoch, 8 * DAY),)


def test_arms_come_with_nothing_and_go_with_nothing() -> None:
    """A new arm holds no share; one that went takes its ended trial and its claim to return with it."""
    lost, _ = play(on_trial(), RAMP, day(8, Action.ROLLBACK))
    changed = with_arms(lost, ("a", "c", "d"))
    assert (changed.weights, changed.trials, changed.epoch) == ({"a": 10_000, "c": 0, "d": 0}, (), lost.epoch)
    promoted = promote(on_trial(), "b", 5)
    assert with_arms(promoted, ("b", "c")).previous_champion is None
    assert with_arms(promoted, ("a", "b")).previous_champion == "a"


ILLEGAL: list[tuple[Callable[[], object], str]] = [
    (lambda: start(on_trial(), "a", 500, 1), "challenger must not be the champion, got 'a'"),
    (lambda: start(on_trial(), "x", 500, 1), "challenger must be one of ['a', 'b', 'c'], got 'x'"),
    (lambda: start(on_trial(), "b", 500, 1), "challenger 'b' is on trial already, with 1000 bp"),
    (lambda: start(on_trial(), "c", 0, 1), "share must be in (0, 10000), got 0"),
    (lambda: start(on_trial(), "c", 10_000, 1), "share must be in (0, 10000), got 10000"),
    (lambda: promote(on_trial(), "a", 1), "'a' is the champion already"),
    (lambda: promote(on_trial(), "x", 1), "challenger must be one of ['a', 'b', 'c'], got 'x'"),
    (lambda: promote(on_trial(ALL_A), None, 1), "challenger must be named: 0 are on trial []"),
    (lambda: promote(on_trial(TWO_TRIALS), None, 1), "challenger must be named: 2 are on trial ['b', 'c']"),
    (lambda: roll_back(on_trial(TWO_TRIALS), None, 1), "challenger must be named: 2 are on trial ['b', 'c']"),
    (lambda: roll_back(on_trial(), "c", 1), "challenger 'c' is not on trial"),
    (lambda: roll_back(on_trial(), "a", 1), "there is nothing to roll back"),
    (lambda: roll_back(roll_back(on_trial(), "b", 1), "b", 2), "challenger 'b' is not on trial"),
    (lambda: roll_back(late(), None, 9), "nobody is on trial ('c' is rolled_back): to bring"),
    (lambda: roll_back(on_trial(ALL_A), None, 1), "there is nothing to roll back"),
    (lambda: pause(on_trial(ALL_A)), "there is nothing to pause: no challenger is on trial"),
    (lambda: pause(pause(on_trial())), "automatic steps are suspended already"),
    (lambda: resume(on_trial()), "automatic steps are not suspended"),
    (lambda: approve(on_trial(), RAMP, 1), "no step waits for approval"),
    (lambda: set_kill_switch(on_trial(), on=False), "the kill switch is off already"),
    (lambda: set_kill_switch(set_kill_switch(on_trial(), on=True), on=True), "the kill switch is on already"),
    (lambda: with_arms(on_trial(), ("b", "c")), "arm 'a' is the champion: promote another or roll it back"),
    (lambda: with_arms(on_trial(), ("a", "c")), "arm 'b' holds 1000 bp: promote another or roll it back"),
    (
        lambda: set_split(on_trial(), ALL_A, 1, champion="x"),
        "champion must be one of ['a', 'b', 'c'], got 'x'",
    ),
    (lambda: play(on_trial(), RAMP, day(1, Action.HOLD, arm="c")), "challenger 'c' is not on trial"),
    (
        lambda: play(withdraw(on_trial(), "b", Phase.ROLLED_BACK, 1), RAMP, day(1, Action.STEP)),
        "challenger 'b' is not on trial",
    ),
]


@pytest.mark.parametrize(("attempt", "message"), ILLEGAL, ids=[message for _, message in ILLEGAL])
def test_what_cannot_be_done_is_refused(attempt: Callable[[], object], message: str) -> None:
    """With what is wanted and what there is."""
    with pytest.raises(IllegalTransition) as refused:
        attempt()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 9_000}, "weights must sum to 10000, got 9000"),
        ({"a": 9_000, "x": 1_000}, "weights names unknown arm 'x'"),
        ({"a": 11_000, "b": -1_000}, "weights.a must be in"),
    ],
)
def test_a_split_that_is_none_is_refused_and_not_repaired(weights: dict[str, int], message: str) -> None:
    """Weights must sum to 10,000 over known arms."""
    with pytest.raises(BadWeights, match=message):
        set_split(on_trial(), weights, 1)
    with pytest.raises(BadWeights, match="sum to 10000, got 9000"):
        begin("a", {"a": 9_000, "b": 0}, 0)


ARMS = st.sampled_from("abc")
SHARES = st.integers(0, 10_000)
Move = Callable[[Rollout, int], Rollout]


def divided(cut: int, other: int) -> dict[str, int]:
    """Three shares that sum to 10,000."""
    low, high = sorted((cut, other))
    return {"a": low, "b": high - low, "c": 10_000 - high}


def judged_day(arm: str, action: Action, verdict: Verdict, policy: Policy) -> Move:
    """A day's judgement as a move; the day ends when it happens."""
    return lambda rollout, now: after_verdict(
        rollout, policy, Judged(arm, verdict, FULL, action, 1, now), now
    )[0]


POLICIES = st.builds(
    Policy,
    ramp_bp=st.sampled_from([(10_000,), (2_500, 5_000, 10_000)]),
    advance=st.sampled_from(Advance),
    approval=st.sampled_from(Approval),
)
MOVES: st.SearchStrategy[Move] = st.one_of(
    st.builds(judged_day, ARMS, st.sampled_from(Action), st.sampled_from(Verdict), POLICIES),
    st.builds(lambda policy: lambda rollout, now: approve(rollout, policy, now)[0], POLICIES),
    st.builds(lambda arm, share: lambda rollout, now: start(rollout, arm, share, now), ARMS, SHARES),
    st.builds(lambda arm: lambda rollout, now: promote(rollout, arm, now), st.none() | ARMS),
    st.builds(lambda arm: lambda rollout, now: roll_back(rollout, arm, now), st.none() | ARMS),
    st.builds(
        lambda one, two, arm: lambda rollout, now: set_split(rollout, divided(one, two), now, champion=arm),
        SHARES,
        SHARES,
        st.none() | ARMS,
    ),
    st.sampled_from([lambda rollout, now: pause(rollout), lambda rollout, now: resume(rollout)]),
    st.booleans().map(lambda on: lambda rollout, now: set_kill_switch(rollout, on=on)),
)


@settings(max_examples=500)
@given(moves=st.lists(MOVES, min_size=5, max_size=25))
def test_whatever_happens_the_rollout_stays_whole(moves: list[Move]) -> None:
    """Shares sum to 10,000 and none is negative, the champion is never on trial, a challenger with a share
    always is, epochs only rise, and they rise with every change of the weights."""
    rollout = on_trial()
    for now, move in enumerate(moves, start=1):
        before = rollout
        try:
            rollout = move(rollout, now)
        except IllegalTransition:
            continue
        assert sum(rollout.weights.values()) == 10_000
        assert min(rollout.weights.values()) >= 0
        assert set(rollout.weights) == set("abc")
        running = {trial.arm for trial in rollout.active_trials}
        assert rollout.champion not in running
        assert {arm for arm, share in rollout.weights.items() if share} <= running | {rollout.champion}
        assert len({trial.arm for trial in rollout.trials}) == len(rollout.trials)
        assert running or not rollout.suspended
        assert rollout.epoch >= before.epoch + (rollout.weights != before.weights)
        assert rollout.previous_champion != rollout.champion
