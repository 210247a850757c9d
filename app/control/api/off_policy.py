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
from app.db.decision_log import Span, newest
from app.db.routes import StoredRoute, load_route
from app.decision_logs import Evidence, room
from app.off_policy import Question, note_of_more

router = APIRouter(tags=["history"])

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
"""One evaluation at a time in a process: each takes memory and a core."""


@router.post("/off-policy-evaluations")
async def evaluate_off_policy(document: QuestionDocument, context: Scope, _: Viewer) -> OffPolicyEvaluation:
    """What would another way of choosing arms have earned, judged from the log?

    Of the decisions whose arm was drawn, by weights or by a bandit, and whose reward is mature. What cannot
    be judged is refused with 422: `errors` then says "cannot be judged: REASON", one of `no_data`,
    `no_support`, `propensities_do_not_add_up`, `too_few_effective_samples`, `no_spread`, `no_reward` and
    `no_bandit`, and `detail` says why.
    """
    async with context.database.read() as connection:
        route = await load_route(connection, document.route)
    question = question_of(document, route.spec)
    async with _turn():
        evidence, notes = await _read(context, route, question, _span(document, question))
        return await asyncio.to_thread(_answer, question, evidence, notes)


def _span(document: QuestionDocument, question: Question) -> Span:
    mature_ms = now_ms() - question.wait_ms
    return Span(
        from_ms=0 if document.since is None else unix_ms("from", document.since),
        to_ms=mature_ms if document.to is None else min(mature_ms, unix_ms("to", document.to)),
        most=min(document.most, room(question.spec)),
    )


async def _read(
    context: Context, route: StoredRoute, question: Question, span: Span
) -> tuple[Evidence, tuple[str, ...]]:
    """The evidence, and what is to be said of it: whether there was more than can be judged."""
    book, left, has_more = question.book(), span.most, False
    async with context.database.read() as connection:
        async for page in newest(connection, route, replace(span, most=span.most + 1)):
            await asyncio.to_thread(book.add, page[:left])
            has_more = len(page) > left
            left -= len(page)
    return await asyncio.to_thread(book.close), (note_of_more(span.most),) if has_more else ()


def _answer(question: Question, evidence: Evidence, notes: Sequence[str]) -> OffPolicyEvaluation:
    (candidate,) = question.candidates
    return evaluation_view(question, candidate, evidence, question.judge(candidate, evidence), notes)


def _turn() -> asyncio.Semaphore:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(1))
