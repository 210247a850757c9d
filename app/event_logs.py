"""What does a file of events say that can be judged? Decisions that were drawn, whose reward is mature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from app.decision_logs import KEPT_ARM, Evidence, Logged, room
from app.event_lines import Decision, Events
from app.off_policy import Question, note_of_more
from routing.types import DRAWN

NOT_DRAWN = "not_drawn"
"""Why a decision is left out: its arm was certain, or somebody wanted it."""

IMMATURE = "immature"
"""Why a decision is left out: outcomes that count for it may not be in the file yet."""


@dataclass(frozen=True, slots=True)
class Extract:
    """Which decisions are asked for: from when to when, both included, and of these the `most` newest.

    All events before `complete_ms` are in the file; None: before the latest that it has. Times are Unix ms.
    """

    most: int
    from_ms: int | None = None
    to_ms: int | None = None
    complete_ms: int | None = None

    def holds(self, at_ms: int) -> bool:
        """Whether it includes a moment."""
        is_late = self.from_ms is None or at_ms >= self.from_ms
        return is_late and (self.to_ms is None or at_ms <= self.to_ms)


def evidence_of(events: Events, question: Question, extract: Extract) -> tuple[Evidence, tuple[str, ...]]:
    """The evidence, and what is to be said of it.

    Raises:
        CannotJudge: `no_reward`.
    """
    complete_ms = events.last_ms if extract.complete_ms is None else extract.complete_ms
    mature_ms = complete_ms - question.wait_ms
    kept: list[Decision] = []
    left_out: Counter[str] = Counter()
    for decision in filter(lambda decision: extract.holds(decision.at_ms), events.decisions):
        if not _is_drawn(decision):
            left_out[NOT_DRAWN] += 1
        elif decision.first_at_ms is not None:
            left_out[KEPT_ARM] += 1
        elif decision.at_ms > mature_ms:
            left_out[IMMATURE] += 1
        else:
            kept.append(decision)
    most = min(extract.most, room(question.spec))
    book = question.book()
    book.leave_out(left_out)
    book.add([_logged(decision, events) for decision in reversed(kept[-most:])])
    return book.close(), (*_notes(events, question), *([note_of_more(most)] if len(kept) > most else ()))


def _is_drawn(decision: Decision) -> bool:
    """What has no reason was drawn if it could have been otherwise."""
    return decision.propensity < 1 if decision.reason is None else decision.reason in DRAWN


def _logged(decision: Decision, events: Events) -> Logged:
    return Logged(
        id=decision.id,
        arm=decision.arm,
        unit=decision.unit,
        propensity=decision.propensity,
        at_ms=decision.at_ms,
        context=decision.context,
        outcomes=events.outcomes.get(decision.id, {}),
    )


def _notes(events: Events, question: Question) -> Iterator[str]:
    known = {arm.name for arm in question.spec.arms}
    if unknown := sorted({decision.arm for decision in events.decisions} - known):
        yield f"arms that the route does not declare, and no candidate chooses: {', '.join(unknown)}"
    if events.conflicts:
        yield f"outcomes that came again with another value, and have no effect: {events.conflicts}"
