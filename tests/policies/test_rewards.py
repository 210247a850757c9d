"""A reward is arithmetic over the metrics of a mature decision, and nothing else."""

from __future__ import annotations

import ast
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import CannotJudge
from policies.metrics import Metric, Outcome
from policies.rewards import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    BadExpression,
    Reward,
    evaluate,
    is_binary,
    names_in,
    parse,
    reward_of,
    window_ms,
)
from policies.types import Aggregate, Better, Kind

VALUES = {"revenue": 10.0, "cost": 4.0, "ad-cost": 3.0, "7d.sales": 2.0, "zero": 0.0}
METRICS = {
    metric.name: metric
    for metric in (
        Metric("click", Kind.BINARY, window_ms=1_000),
        Metric("revenue", Kind.CONTINUOUS, window_ms=5_000, aggregate=Aggregate.SUM),
        Metric("cost", Kind.CONTINUOUS, better=Better.LOWER, window_ms=2_000),
    )
}


def told(*values: float) -> list[Outcome]:
    """Outcomes with these values, one after the other."""
    return [Outcome(value, at, at, f"{at}") for at, value in enumerate(values)]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("revenue", 10),
        ("revenue - cost", 6),
        ("revenue - 0.5 * cost", 8),
        ("revenue - cost - cost", 2),
        ("revenue / cost / 2", 1.25),
        ("revenue - (cost - 1)", 7),
        ("2 * (revenue + cost) / 7", 4),
        ("-cost", -4),
        ("- cost * 2", -8),
        ("revenue - -cost", 14),
        ("ad-cost + 7d.sales", 5),
        ("ad-cost -7d.sales", 1),
        (".5 + 1. + 0.25", 1.75),
        ("((((revenue))))", 10),
        ("\trevenue  *cost ", 40),
        ("revenue + unknown", 10),
    ],
)
def test_arithmetic_is_what_it_looks_like(expression: str, value: float) -> None:
    """Products before sums, left to right; a hyphen inside a name belongs to it; what has no value is 0."""
    assert evaluate(parse(expression), VALUES) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "must go on with a metric, a number or (, got 'its end'"),
        ("revenue -", "must go on with a metric, a number or (, got 'its end'"),
        ("revenue cost", "must end after a metric, a number or ), got 'cost'"),
        ("revenue ** 2", "must go on with a metric, a number or (, got '*'"),
        ("(revenue", "must close its (, got 'its end'"),
        ("revenue)", "must end after a metric, a number or ), got ')'"),
        ("+ revenue", "must go on with a metric, a number or (, got '+'"),
        ("revenue % 2", "must be metrics, numbers, + - * / and (), got ' % 2'"),
        ("Revenue", "must be metrics, numbers, + - * / and (), got 'Revenue'"),
        ("__import__", "must be metrics, numbers, + - * / and (), got '__import__'"),
        ("a" * (MAX_CHARACTERS + 1), f"must be at most {MAX_CHARACTERS} characters long, got 501"),
        ("(" * (MAX_DEPTH + 1), f"must be nested at most {MAX_DEPTH} times"),
        ("-" * (MAX_DEPTH + 1) + "1", f"must be nested at most {MAX_DEPTH} times"),
    ],
)
def test_what_is_no_arithmetic_is_refused(expression: str, message: str) -> None:
    """The message says where it shows."""
    with pytest.raises(BadExpression) as refused:
        parse(expression)
    assert message in str(refused.value)


@given(st.text(alphabet="ab1.+-*/() ", max_size=40) | st.text(max_size=40))
def test_no_text_does_more_than_be_refused(expression: str) -> None:
    """It is parsed, or it is a BadExpression."""
    try:
        tree = parse(expression)
    except BadExpression:
        return
    assert all(name in expression for name in names_in(tree))


_SIGNS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def by_python(node: ast.AST) -> float:
    """The same arithmetic by Python's own parser."""
    match node:
        case ast.Expression():
            return by_python(node.body)
        case ast.BinOp():
            return float(_SIGNS[type(node.op)](by_python(node.left), by_python(node.right)))
        case ast.UnaryOp():
            return -by_python(node.operand)
        case ast.Constant():
            return float(str(node.value))
        case ast.Name():
            return VALUES[node.id]
        case _:
            raise AssertionError(node)


_leaves = st.sampled_from(["revenue", "cost"]) | st.integers(1, 9).map(str)
_expressions = st.recursive(
    _leaves,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner)
        | st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner)
    ),
    max_leaves=12,
)


@given(_expressions)
def test_it_agrees_with_python(expression: str) -> None:
    """On everything that both can read."""
    try:
        expected = by_python(ast.parse(expression, mode="eval"))
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            evaluate(parse(expression), VALUES)
        return
    assert evaluate(parse(expression), VALUES) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("expression", "outcomes", "value"),
    [
        ("click", {"click": told(1)}, 1),
        ("revenue", {"revenue": told(2, 3)}, 5),
        ("cost", {"cost": told(4)}, -4),
        ("revenue - cost", {"revenue": told(2), "cost": told(4, 9)}, -2),
        ("revenue - cost", {"cost": told(4)}, -4),
        ("revenue - cost", {"click": told(1)}, 0.25),
        ("click", {}, 0.25),
    ],
)
def test_a_decision_is_worth_what_its_outcomes_say(
    expression: str, outcomes: dict[str, list[Outcome]], value: float
) -> None:
    """By each metric's aggregate; one alone of which less is better counts negative; none: the default."""
    assert reward_of(Reward(expression, default=0.25), METRICS, outcomes) == value


@pytest.mark.parametrize(
    ("expression", "outcomes", "message"),
    [
        ("revenue / cost", {"revenue": told(2)}, "division by zero"),
        ("revenue * revenue", {"revenue": told(1e200)}, "must be finite, got inf"),
        ("revenue / cost - revenue", {"revenue": told(1e308), "cost": told(1e-308)}, "must be finite"),
    ],
)
def test_a_reward_that_is_no_number_is_none(
    expression: str, outcomes: dict[str, list[Outcome]], message: str
) -> None:
    """It is refused by name, so that nothing is learnt from it."""
    with pytest.raises(CannotJudge) as refused:
        reward_of(Reward(expression), METRICS, outcomes)
    assert refused.value.reason == "no_reward"
    assert message in str(refused.value)


def test_a_reward_is_mature_when_its_last_window_has_closed() -> None:
    """The longest of those that are named."""
    assert window_ms(Reward("revenue - cost"), METRICS) == 5_000
    assert window_ms(Reward("cost"), METRICS) == 2_000


@pytest.mark.parametrize(
    ("reward", "binary"),
    [
        (Reward("click"), True),
        (Reward("click", default=1.0), True),
        (Reward("click", default=0.5), False),
        (Reward("2 * click"), False),
        (Reward("revenue"), False),
    ],
)
def test_rewards_are_0_or_1_only_of_a_binary_metric(reward: Reward, binary: bool) -> None:
    """Alone, and with a default that is 0 or 1 too."""
    assert is_binary(reward, METRICS) is binary
    loss = {**METRICS, "click": Metric("click", Kind.BINARY, better=Better.LOWER)}
    assert is_binary(reward, loss) is False
