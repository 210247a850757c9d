"""Where does a rollout stand, and what may happen to it next? Every change of traffic is one function here.

A rollout is the state of a route's traffic; a trial is one challenger's run within it. Functions take a
rollout and return the next one, or refuse. Shares are basis points, times Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policies.errors import IllegalTransition
from policies.promotion import Streak
from policies.ramps import all_to, next_share, with_share, without
from policies.spec import Advance, Approval, Policy
from policies.types import Action, Phase, Verdict
from routing.types import TOTAL_BP
from routing.weights import check_weights

ACTIVE = (Phase.TRIAL, Phase.RAMPING, Phase.AWAITING_APPROVAL)
_NOT_HEALTHY = (Verdict.LOSE, Verdict.UNHEALTHY, Verdict.ERROR, Verdict.INSUFFICIENT_DATA)


@dataclass(frozen=True, slots=True)
class Trial:
    """One challenger's run. Its share last changed at `changed_at_ms`; evidence counts from `started_epoch`.

    `judged_through_ms` is the end of the last judged day, `judged_days` the number of days with evidence.
    """

    arm: str
    phase: Phase
    started_at_ms: int
    started_epoch: int
    changed_at_ms: int
    streak: Streak = field(default_factory=Streak)
    judged_days: int = 0
    judged_through_ms: int = 0

    @property
    def active(self) -> bool:
        """Whether the challenger is still being tried."""
        return self.phase in ACTIVE


@dataclass(frozen=True, slots=True)
class Rollout:
    """A route's traffic as it is now. `weights` is arm name → basis points of all live arms, sum 10,000.

    Shadow arms answer nobody and are not among them: nothing here gives one traffic, a trial or the crown.
    The epoch rises with every change of the weights, `salt_number` when a fresh trial draws its units anew.
    """

    champion: str
    weights: Mapping[str, int]
    epoch: int = 1
    salt_number: int = 1
    suspended: bool = False
    kill_switch: bool = False
    previous_champion: str | None = None
    trials: tuple[Trial, ...] = ()
    changed_at_ms: int = 0

    def share(self, arm: str) -> int:
        """The arm's share in basis points."""
        return self.weights.get(arm, 0)

    def trial(self, arm: str) -> Trial | None:
        """The arm's trial, running or ended."""
        return next((trial for trial in self.trials if trial.arm == arm), None)

    @property
    def active_trials(self) -> tuple[Trial, ...]:
        """The trials that run, the largest share first."""
        running = [trial for trial in self.trials if trial.active]
        return tuple(sorted(running, key=lambda trial: (-self.share(trial.arm), trial.arm)))

    @property
    def phase(self) -> Phase:
        """That of the leading trial; else that of the one that ended last; else idle."""
        if running := self.active_trials:
            return running[0].phase
        ended = sorted(self.trials, key=lambda trial: trial.changed_at_ms)
        return ended[-1].phase if ended else Phase.IDLE


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found for one challenger on one mature day, and what the promotion rule makes of it."""

    arm: str
    verdict: Verdict
    streak: Streak
    action: Action
    days: int
    day_end_ms: int


def begin(champion: str, weights: Mapping[str, int], now_ms: int) -> Rollout:
    """The rollout of a new route; challengers that hold a share are on trial from the start.

    Raises:
        BadWeights: the weights do not sum to 10,000, or one is out of bounds.
    """
    blank = Rollout(champion=champion, weights=all_to(champion, list(weights)), epoch=0, changed_at_ms=now_ms)
    return _redistribute(blank, weights, now_ms)


def set_split(
    rollout: Rollout, weights: Mapping[str, int], now_ms: int, champion: str | None = None
) -> Rollout:
    """A person divides the traffic anew (and may name another champion).

    In the middle of a trial this suspends automatic steps; without one it starts trials for who has a share.
    Against another champion every trial starts anew: what it won, it won against the last one.

    Raises:
        IllegalTransition: the champion is unknown.
        BadWeights: an unknown arm, a share out of bounds, or a sum other than 10,000.
    """
    running = rollout.active_trials
    if champion is not None and champion != rollout.champion:
        if champion not in rollout.weights:
            raise IllegalTransition(f"champion must be one of {sorted(rollout.weights)}, got {champion!r}")
        ended = tuple(trial for trial in rollout.trials if not trial.active and trial.arm != champion)
        rollout = replace(rollout, champion=champion, previous_champion=rollout.champion, trials=ended)
    changed = _redistribute(rollout, weights, now_ms)
    return replace(changed, suspended=bool(running and changed.active_trials))


def reallocated(rollout: Rollout, now_ms: int) -> Rollout:
    """The same weights in a new epoch: what divides the traffic is another."""
    return _weigh(rollout, rollout.weights, now_ms)


def start(rollout: Rollout, arm: str, share_bp: int, now_ms: int) -> Rollout:
    """Put a challenger on trial with a share, for the first time or again.

    Raises:
        IllegalTransition: it is the champion, unknown, on trial already, or the share is out of bounds.
    """
    if arm == rollout.champion:
        raise IllegalTransition(f"challenger must not be the champion, got {arm!r}")
    if arm not in rollout.weights:
        raise IllegalTransition(f"challenger must be one of {sorted(rollout.weights)}, got {arm!r}")
    if rollout.share(arm):
        raise IllegalTransition(f"challenger {arm!r} is on trial already, with {rollout.share(arm)} bp")
    if not 0 < share_bp < TOTAL_BP:
        raise IllegalTransition(f"share must be in (0, {TOTAL_BP}), got {share_bp}")
    weights = with_share(rollout.weights, arm, share_bp, rollout.champion)
    if starved := [trial.arm for trial in rollout.active_trials if not weights[trial.arm]]:
        raise IllegalTransition(f"share {share_bp} would leave nothing for {starved[0]!r}, which is on trial")
    return _redistribute(rollout, weights, now_ms)


def promote(rollout: Rollout, arm: str | None, now_ms: int) -> Rollout:
    """Make a challenger the champion, with all traffic. Without a name: the one on trial.

    Raises:
        IllegalTransition: it is the champion already, or unknown; or no name and not exactly one on trial.
    """
    arm = arm if arm is not None else _only_trial(rollout).arm
    if arm == rollout.champion:
        raise IllegalTransition(f"{arm!r} is the champion already")
    if arm not in rollout.weights:
        raise IllegalTransition(f"challenger must be one of {sorted(rollout.weights)}, got {arm!r}")
    crowned = replace(rollout, champion=arm, previous_champion=rollout.champion)
    trials = [_ended(trial, Phase.INCONCLUSIVE, now_ms) for trial in rollout.trials if trial.arm != arm]
    mine = rollout.trial(arm) or Trial(arm, Phase.TRIAL, now_ms, rollout.epoch, now_ms)
    winner = replace(mine, phase=Phase.PROMOTED, changed_at_ms=now_ms)
    settled = replace(crowned, trials=(*trials, winner), suspended=False)
    return _weigh(settled, all_to(arm, list(rollout.weights)), now_ms)


def roll_back(rollout: Rollout, arm: str | None, now_ms: int) -> Rollout:
    """A person takes a challenger's traffic away. The champion's name: the one before it returns.

    Without a name it is the one on trial or, right after a promotion, the new champion. A person who is late,
    because the challenger has been taken off already, must not dethrone a champion by it.

    Raises:
        IllegalTransition: nothing can be rolled back, or it is not plain what.
    """
    if arm is None and not rollout.active_trials:
        _require_that_promotion_was_last(rollout)
        arm = rollout.champion
    if arm == rollout.champion:
        return _restore(rollout, now_ms)
    trial = rollout.trial(arm) if arm is not None else _only_trial(rollout)
    if trial is None or not trial.active:
        raise IllegalTransition(f"challenger {arm!r} is not on trial")
    after = withdraw(rollout, trial.arm, Phase.ROLLED_BACK, now_ms)
    return replace(after, suspended=bool(after.active_trials))


def withdraw(rollout: Rollout, arm: str, phase: Phase, now_ms: int) -> Rollout:
    """End a trial in a phase; its share goes back to the champion. Other trials go on."""
    trials = tuple(
        replace(trial, phase=phase, changed_at_ms=now_ms) if trial.arm == arm else trial
        for trial in rollout.trials
    )
    after = replace(rollout, trials=trials)
    after = replace(after, suspended=after.suspended and bool(after.active_trials))
    return _weigh(after, without(rollout.weights, arm, rollout.champion), now_ms)


def pause(rollout: Rollout) -> Rollout:
    """Suspend automatic steps; guardrails stay live.

    Raises:
        IllegalTransition: nobody is on trial, or steps are suspended already.
    """
    if not rollout.active_trials:
        raise IllegalTransition("there is nothing to pause: no challenger is on trial")
    if rollout.suspended:
        raise IllegalTransition("automatic steps are suspended already")
    return replace(rollout, suspended=True)


def resume(rollout: Rollout) -> Rollout:
    """Let automatic steps go on.

    Raises:
        IllegalTransition: they are not suspended.
    """
    if not rollout.suspended:
        raise IllegalTransition("automatic steps are not suspended")
    return replace(rollout, suspended=False)


def approve(rollout: Rollout, policy: Policy, now_ms: int) -> tuple[Rollout, Action]:
    """A person takes the step that was earned; the action is STEP or PROMOTE.

    Raises:
        IllegalTransition: no step waits for approval.
    """
    waiting = [trial for trial in rollout.active_trials if trial.phase is Phase.AWAITING_APPROVAL]
    if not waiting:
        raise IllegalTransition("no step waits for approval")
    return _step(rollout, waiting[0], policy, now_ms)


def set_kill_switch(rollout: Rollout, on: bool) -> Rollout:
    """All traffic to the champion at once, or no longer.

    Raises:
        IllegalTransition: it is so already.
    """
    if rollout.kill_switch is on:
        raise IllegalTransition(f"the kill switch is {'on' if on else 'off'} already")
    return replace(rollout, kill_switch=on)


def with_arms(rollout: Rollout, arms: tuple[str, ...]) -> Rollout:
    """The rollout over these live arms: new ones hold nothing, those that are gone must have held nothing.

    Raises:
        IllegalTransition: an arm that would go is the champion or holds a share.
    """
    for arm in rollout.weights:
        if arm not in arms and (arm == rollout.champion or rollout.share(arm)):
            what = "is the champion" if arm == rollout.champion else f"holds {rollout.share(arm)} bp"
            first = "promote another or roll it back before it goes or becomes a shadow"
            raise IllegalTransition(f"arm {arm!r} {what}: {first}")
    trials = tuple(trial for trial in rollout.trials if trial.arm in arms)
    previous = rollout.previous_champion if rollout.previous_champion in arms else None
    weights = {arm: rollout.share(arm) for arm in arms}
    return replace(rollout, weights=weights, trials=trials, previous_champion=previous)


def after_verdict(rollout: Rollout, policy: Policy, judged: Judged, now_ms: int) -> tuple[Rollout, Action]:
    """What one judged day does: the streak is kept, and a step, end or rollback follows where it was earned.

    While steps are suspended, or the kill switch is on, only the streak moves.

    Raises:
        IllegalTransition: the arm is not on trial.
    """
    trial = rollout.trial(judged.arm)
    if trial is None or not trial.active:
        raise IllegalTransition(f"challenger {judged.arm!r} is not on trial")
    trial = replace(trial, streak=judged.streak, judged_days=judged.days, judged_through_ms=judged.day_end_ms)
    noted = _replace_trial(rollout, trial)
    if rollout.suspended or rollout.kill_switch:
        return _as_earned(noted, trial, policy, judged), Action.HOLD
    match judged.action:
        case Action.ROLLBACK:
            return withdraw(noted, trial.arm, Phase.ROLLED_BACK, now_ms), Action.ROLLBACK
        case Action.END:
            return withdraw(noted, trial.arm, Phase.INCONCLUSIVE, now_ms), Action.END
        case _:
            return _step_or_hold(noted, trial, policy, judged, now_ms)


def obstacle(rollout: Rollout, trial: Trial, policy: Policy, judged: Judged, now_ms: int) -> str | None:
    """Why a step that was earned is not taken now, as a sentence; None when nothing is in its way."""
    ramping = [
        other.arm
        for other in rollout.active_trials
        if other.arm != trial.arm and other.phase in (Phase.RAMPING, Phase.AWAITING_APPROVAL)
    ]
    if rollout.kill_switch:
        return "the kill switch is on"
    if rollout.suspended:
        return "automatic steps are suspended"
    if ramping:
        return f"{ramping[0]} is ramping, and one challenger ramps at a time"
    if judged.day_end_ms <= trial.changed_at_ms:
        return "the share has changed since that day"
    if (left_ms := policy.bake_ms - (now_ms - trial.changed_at_ms)) > 0:
        return f"the present share has to bake for {left_ms / 3_600_000:.2g} h more"
    return None


def _step_or_hold(
    rollout: Rollout, trial: Trial, policy: Policy, judged: Judged, now_ms: int
) -> tuple[Rollout, Action]:
    if not _earned(rollout, trial, policy, judged):
        return _as_earned(rollout, trial, policy, judged), Action.HOLD
    if obstacle(rollout, trial, policy, judged, now_ms) is not None:
        return rollout, Action.HOLD
    if policy.approval is Approval.MANUAL:
        waiting = replace(trial, phase=Phase.AWAITING_APPROVAL)
        return _replace_trial(rollout, waiting), Action.AWAIT_APPROVAL
    return _step(rollout, trial, policy, now_ms)


def _as_earned(rollout: Rollout, trial: Trial, policy: Policy, judged: Judged) -> Rollout:
    """A step that waits for approval waits no longer once it is not earned any more."""
    if trial.phase is not Phase.AWAITING_APPROVAL or _earned(rollout, trial, policy, judged):
        return rollout
    stepped = trial.changed_at_ms > trial.started_at_ms
    return _replace_trial(rollout, replace(trial, phase=Phase.RAMPING if stepped else Phase.TRIAL))


def _earned(rollout: Rollout, trial: Trial, policy: Policy, judged: Judged) -> bool:
    if judged.action is Action.STEP:
        return True
    last_step = next_share(policy.ramp_bp, rollout.share(trial.arm)) == TOTAL_BP
    return policy.advance is Advance.HEALTHY and not last_step and judged.verdict not in _NOT_HEALTHY


def _step(rollout: Rollout, trial: Trial, policy: Policy, now_ms: int) -> tuple[Rollout, Action]:
    share_bp = next_share(policy.ramp_bp, rollout.share(trial.arm))
    if share_bp == TOTAL_BP:
        return promote(rollout, trial.arm, now_ms), Action.PROMOTE
    weights = with_share(rollout.weights, trial.arm, share_bp, rollout.champion)
    ramping = replace(trial, phase=Phase.RAMPING, changed_at_ms=now_ms)
    return _weigh(_replace_trial(rollout, ramping), weights, now_ms), Action.STEP


def _require_that_promotion_was_last(rollout: Rollout) -> None:
    crowned = rollout.trial(rollout.champion)
    since = [
        trial for trial in rollout.trials if crowned is None or trial.changed_at_ms > crowned.changed_at_ms
    ]
    if since and rollout.previous_champion is not None:
        last = max(since, key=lambda trial: trial.changed_at_ms)
        raise IllegalTransition(
            f"nobody is on trial ({last.arm!r} is {last.phase}): to bring back "
            f"{rollout.previous_champion!r}, name the champion {rollout.champion!r} as the arm"
        )


def _restore(rollout: Rollout, now_ms: int) -> Rollout:
    previous = rollout.previous_champion
    if previous is None:
        raise IllegalTransition("there is nothing to roll back: nobody is on trial and no champion preceded")
    trials = tuple(
        replace(trial, phase=Phase.ROLLED_BACK, changed_at_ms=now_ms)
        if trial.arm == rollout.champion
        else _ended(trial, Phase.INCONCLUSIVE, now_ms)
        for trial in rollout.trials
        if trial.arm != previous
    )
    restored = replace(rollout, champion=previous, previous_champion=None, trials=trials, suspended=False)
    return _weigh(restored, all_to(previous, list(rollout.weights)), now_ms)


def _redistribute(rollout: Rollout, weights: Mapping[str, int], now_ms: int) -> Rollout:
    """The weights, with a fresh trial for each challenger that had no share, and none for those without."""
    check_weights(weights, rollout.weights)
    held_before = any(rollout.share(arm) for arm in rollout.weights if arm != rollout.champion)
    held_after = any(share for arm, share in weights.items() if arm != rollout.champion)
    fresh_units = rollout.epoch > 0 and held_after and not held_before
    after = _weigh(rollout, weights, now_ms)
    trials = [_trial_at(rollout, arm, after.share(arm), after.epoch, now_ms) for arm in after.weights]
    return replace(
        after,
        trials=tuple(trial for trial in trials if trial is not None),
        salt_number=rollout.salt_number + fresh_units,
    )


def _trial_at(rollout: Rollout, arm: str, share_bp: int, epoch: int, now_ms: int) -> Trial | None:
    known = rollout.trial(arm)
    if arm == rollout.champion:
        return known
    if share_bp == 0:
        return None if known is None or known.active else known
    if known is None or not known.active:
        return Trial(arm, Phase.TRIAL, now_ms, epoch, now_ms)
    return known if share_bp == rollout.share(arm) else replace(known, changed_at_ms=now_ms)


def _weigh(rollout: Rollout, weights: Mapping[str, int], now_ms: int) -> Rollout:
    full = {arm: weights.get(arm, 0) for arm in rollout.weights}
    return replace(rollout, weights=full, epoch=rollout.epoch + 1, changed_at_ms=now_ms)


def _only_trial(rollout: Rollout) -> Trial:
    running = rollout.active_trials
    if len(running) != 1:
        names = [trial.arm for trial in running]
        raise IllegalTransition(f"challenger must be named: {len(names)} are on trial {names}")
    return running[0]


def _ended(trial: Trial, phase: Phase, now_ms: int) -> Trial:
    return replace(trial, phase=phase, changed_at_ms=now_ms) if trial.active else trial


def _replace_trial(rollout: Rollout, trial: Trial) -> Rollout:
    trials = tuple(trial if other.arm == trial.arm else other for other in rollout.trials)
    return replace(rollout, trials=trials)
