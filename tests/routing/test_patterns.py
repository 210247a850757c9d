"""Expressions are searched for in time that no text can stretch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.patterns import MAX_TEXT, all_found, is_found, pattern, refusal, together


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        ("^a.c$", "abc", True),
        ("^a.c$", "abcd", False),
        ("", "", True),
        ("(?i)BETA", "x-beta-1", True),
        ("BETA", "x-beta-1", False),
        (r"^/v[0-9]+/", "/v12/score", True),
        ("é$", "café", True),
        ("^.$", "\ud800", True),
        ("x", "\ud800x", True),
        ("x$", "x\n", False),
    ],
)
def test_an_expression_is_searched_for(expression: str, text: str, found: bool) -> None:
    """Anywhere, unless it is anchored; in the case it is written in, unless it says otherwise."""
    assert refusal(expression) is None
    assert is_found(pattern(expression), text) is found


def test_only_the_beginning_of_a_text_is_looked_at() -> None:
    """What stands behind the bound is not there."""
    assert is_found(pattern("é$"), "x" * (MAX_TEXT - 1) + "é")
    assert not is_found(pattern("é"), "x" * MAX_TEXT + "é")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a(b", "must be a regular expression of RE2 (missing ): a(b)"),
        ("(?=a)", "must be a regular expression of RE2 (invalid perl operator: (?=)"),
        (r"(a)\1", r"must be a regular expression of RE2 (invalid escape sequence: \1)"),
        ("a{1001}", "must be a regular expression of RE2 (invalid repetition size: {1001})"),
        ("[^/]{1,64}", "must compile to at most 500 instructions of RE2 (579)"),
    ],
)
def test_what_is_refused(expression: str, message: str) -> None:
    """What is no expression, what cannot be found in one walk, and what would make each step of it costly."""
    assert refusal(expression) == message
    with pytest.raises(ValueError, match=r"^must "):
        pattern(expression)


@pytest.mark.parametrize("expression", ["(x+x+)+y", "(a*)*b", "(.*a){20}z", "(?:a?){160}a{160}", "(a|aa)+$"])
def test_catastrophic_expressions_end(expression: str) -> None:
    """What a backtracking engine would not finish is searched for in the longest text many times over."""
    compiled = pattern(expression)
    for text in ("x" * MAX_TEXT, "a" * MAX_TEXT, "a" * (MAX_TEXT - 1) + "!"):
        for _ in range(20):
            is_found(compiled, text)


@given(expression=st.text(alphabet=r"ab\.[]()*+?{}|^$0123456789,-é", max_size=40), text=st.text())
def test_every_expression_is_refused_or_searched_for(expression: str, text: str) -> None:
    """Nothing else comes of one, whatever it and the text are."""
    message = refusal(expression)
    if message is None:
        assert is_found(pattern(expression), text) in (True, False)
    else:
        assert message.startswith("must ")


WRITTEN = st.text(alphabet=r"ab\.[]()*+?{}|^$01-é", max_size=12)


@given(expressions=st.lists(WRITTEN, max_size=8), text=st.text(alphabet="ab01é\ud800\n", max_size=20))
def test_together_the_same_ones_are_found(expressions: list[str], text: str) -> None:
    """As each alone, in their order, however many times one is there."""
    expressions = [each for each in expressions if refusal(each) is None]
    every = together([*expressions, *expressions])
    assert every is not None
    alone = [place for place, each in enumerate(expressions) if is_found(pattern(each), text)]
    assert all_found(every, text) == [*alone, *(len(expressions) + place for place in alone)]


def test_together_the_beginning_of_a_text_is_looked_at() -> None:
    """As far as alone: the end of that is an end."""
    every = together(["b", "a$", "^a"])
    assert every is not None
    assert all_found(every, "a" * MAX_TEXT + "b") == [1, 2]


def test_what_is_too_much_together_is_said() -> None:
    """Each of these can be searched for alone; for hundreds of them there is no memory."""
    large = [f"[ab]*a[ab]{{{200 + number % 30}}}{number}" for number in range(200)]
    assert [refusal(each) for each in large] == [None] * 200
    assert together(large) is None
    assert together(large[:4]) is not None


class GivesUp:
    """Expressions for which RE2 has run out of memory: it then says that none is found."""

    def Match(self, _: bytes) -> list[int] | None:  # noqa: N802 - the name is RE2's
        return None


def test_to_find_nothing_is_not_to_give_up() -> None:
    """The two are told apart, although RE2 itself says the same of both."""
    every = together(["a", "b"])
    assert every is not None
    assert all_found(every, "c") == []
    assert all_found(GivesUp(), "c") is None
