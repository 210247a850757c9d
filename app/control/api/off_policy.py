"""What would another way of choosing arms have earned, judged from the log of decisions?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from fastapi import APIRouter

from app.clock import now_ms
from app.control.api.history import unix_ms
from app.control.api.parameters import Scope
from app.control.auth import Viewer
from app.control.context import Context
from app.control.off_policy import OffPolicyEvaluation, QuestionDocument, evaluation_view, question_of
from app.db.decision_log import Span, count_kept, count_undrawn, newest
from app.db.recorders import recorded_through
from app.db.routes import StoredRoute, load_route
from app.decision_logs import KEPT_ARM, Evidence, room
from app.event_logs import NOT_DRAWN
from app.off_policy import Question, note_of_lag, note_of_more
from policies.errors import BadSpec, CannotJudge

router = APIRouter(tags=["history"])

LATE_MS = 60_000
"""How far the record may be behind without a word."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
"""One evaluation at a time in a process: each takes memory and a core."""


@router.post("/off-policy-evaluations")
async def evaluate_off_policy(document: QuestionDocument, context: Scope, _: Viewer) -> OffPolicyEvaluation:
    """What would another way of choosing arms have earned, judged from the log?

    Of the decisions whose arm was drawn, by weights or by a bandit, and whose reward is mature: everything is
    recorded that counts for it. What cannot be judged is refused with 422: `errors` then says "cannot be
    judged: REASON", one of `no_data`, `no_support`, `propensities_do_not_add_up`,
    `too_few_effective_samples`, `no_spread`, `no_reward` and `no_bandit`, and `detail` says why.
    """
    async with context.database.read() as connection:
        route = await load_route(connection, document.route)
    question = question_of(document, route.spec)
    async with _turn():
        evidence, notes = await _read(context, route, document, question)
        return await asyncio.to_thread(_answer, question, evidence, notes)


def _span(document: QuestionDocument, question: Question, through_ms: int) -> Span:
    """What is asked for, of decisions about which everything is recorded that counts."""
    mature_ms = through_ms - question.wait_ms
    from_ms = 0 if document.since is None else unix_ms("from", document.since)
    to_ms = mature_ms if document.to is None else unix_ms("to", document.to)
    if document.since is not None and document.to is not None and from_ms > to_ms:
        bound = f"must not be after to, {document.to.isoformat()}"
        raise BadSpec("from", f"{bound}, got {document.since.isoformat()}")
    return Span(
        from_ms=from_ms,
        to_ms=min(mature_ms, to_ms),
        most=min(document.most, room(question.spec)),
    )


async def _read(
    context: Context, route: StoredRoute, document: QuestionDocument, question: Question
) -> tuple[Evidence, list[str]]:
    """The evidence, and what is to be said of it: whether there was more, or will be when it is recorded."""
    book = question.book()
    notes: list[str] = []
    async with context.database.read() as connection:
        through_ms = await recorded_through(connection)
        if now_ms() - through_ms > LATE_MS:
            notes.append(note_of_lag(through_ms))
        span = _span(document, question, through_ms)
        left = span.most
        async for page in newest(connection, route, replace(span, most=span.most + 1)):
            await asyncio.to_thread(book.add, page[:left])
            if len(page) > left:
                notes.append(note_of_more(span.most))
                span = replace(span, from_ms=page[left].at_ms)
            left -= len(page)
        if kept := await count_kept(connection, route, span):
            book.leave_out({KEPT_ARM: kept})
        if undrawn := await count_undrawn(connection, route, span):
            book.leave_out({NOT_DRAWN: undrawn})
    return await asyncio.to_thread(book.close), notes


def _answer(question: Question, evidence: Evidence, notes: Sequence[str]) -> OffPolicyEvaluation:
    (candidate,) = question.candidates
    try:
        found = question.judge(candidate, evidence)
    except CannotJudge as error:
        raise CannotJudge(error.reason, "; ".join([str(error), *notes])) from error
    return evaluation_view(question, candidate, evidence, found, notes)


def _turn() -> asyncio.Semaphore:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(1))
