"""Several verdicts are as good as the worst of them."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.types import Verdict, worst

WORST_FIRST = ["error", "unhealthy", "lose", "insufficient_data", "inconclusive", "tie", "win"]


@pytest.mark.parametrize(("worse", "better"), list(pairwise(WORST_FIRST)))
def test_verdicts_have_an_order(worse: str, better: str) -> None:
    """From error to win, whichever is named first; no data is never a pass."""
    assert {worst(*order) for order in permutations([Verdict(worse), Verdict(better)])} == {Verdict(worse)}


def test_every_verdict_has_its_place() -> None:
    """None is left out of the order."""
    assert sorted(WORST_FIRST) == sorted(Verdict)


@given(st.lists(st.sampled_from(Verdict), min_size=1))
def test_the_worst_is_one_of_them_and_wins_need_all(verdicts: list[Verdict]) -> None:
    """A win only where every verdict is one."""
    assert worst(*verdicts) in verdicts
    assert (worst(*verdicts) is Verdict.WIN) == (set(verdicts) == {Verdict.WIN})
