"""What is a decision worth to the bandit? A metric's value, or arithmetic over several, once it is mature."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from operator import add, mul, sub, truediv

from policies.errors import CannotJudge
from policies.metrics import Metric, Outcome, combine
from policies.types import Better, Kind

MAX_CHARACTERS = 500
MAX_DEPTH = 32

_TOKEN = re.compile(r"\s*(?P<token>\.[0-9]+|[a-z0-9][a-z0-9._-]*|[-+*/()])")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_SUMS = {"+": add, "-": sub}
_PRODUCTS = {"*": mul, "/": truediv}

Values = Mapping[str, float]
Tree = float | str | tuple[str, "Tree", "Tree"]
"""A number, a metric's name, or an operator with both its sides."""


class BadExpression(ValueError):
    """It is no arithmetic over metrics; the message says where that shows."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A metric's name, or an expression such as `revenue - 0.5 * cost`; more is better.

    Spaces stand around an operator, since a name may hold a hyphen. `default` is the reward of a decision of
    which no outcome came within the attribution window of any metric that is named.
    """

    expression: str
    default: float = 0.0


@lru_cache(maxsize=256)
def parse(expression: str) -> Tree:
    """The arithmetic that an expression describes.

    Raises:
        BadExpression: it is none, is longer than 500 characters, or nested deeper than 32 times.
    """
    if len(expression) > MAX_CHARACTERS:
        raise BadExpression(f"must be at most {MAX_CHARACTERS} characters long, got {len(expression)}")
    return _Parser(_tokens(expression)).whole()


def names_in(tree: Tree) -> frozenset[str]:
    """The metrics that an expression names."""
    match tree:
        case str():
            return frozenset({tree})
        case float():
            return frozenset()
        case (_, left, right):
            return names_in(left) | names_in(right)


def evaluate(tree: Tree, values: Values) -> float:
    """What an expression comes to; a metric without a value counts as 0.

    Raises:
        ZeroDivisionError, OverflowError: as arithmetic does.
    """
    match tree:
        case str():
            return values.get(tree, 0.0)
        case float():
            return tree
        case (sign, left, right):
            return float((_SUMS | _PRODUCTS)[sign](evaluate(left, values), evaluate(right, values)))


def reward_of(
    reward: Reward, metrics: Mapping[str, Metric], outcomes: Mapping[str, Sequence[Outcome]]
) -> float:
    """The reward of a mature decision by its outcomes, metric by metric.

    A single metric of which less is better counts negative.

    Raises:
        CannotJudge: a division by zero, or a number beyond all bounds.
    """
    tree = parse(reward.expression)
    values = {
        name: value
        for name in names_in(tree)
        if (value := combine(metrics[name].aggregate, outcomes.get(name, ()))) is not None
    }
    if not values:
        return reward.default
    sign = -1.0 if isinstance(tree, str) and metrics[tree].better is Better.LOWER else 1.0
    try:
        found = sign * evaluate(tree, values)
    except (ZeroDivisionError, OverflowError) as error:
        raise CannotJudge("no_reward", f"{reward.expression} has no value for {values}: {error}") from error
    if not isfinite(found):
        raise CannotJudge("no_reward", f"{reward.expression} must be finite, got {found} for {values}")
    return found


def in_time(
    outcomes: Mapping[str, Sequence[Outcome]], metrics: Mapping[str, Metric], at_ms: int, known_by_ms: int
) -> dict[str, list[Outcome]]:
    """The outcomes of a decision made at `at_ms` (Unix ms) that count for its reward, metric by metric.

    They happened within the window of their metric, and were received by `known_by_ms`.
    """
    return {
        name: [
            one
            for one in outcomes.get(name, ())
            if one.received_at_ms <= known_by_ms and one.at_ms <= at_ms + metric.window_ms
        ]
        for name, metric in metrics.items()
    }


def window_ms(reward: Reward, metrics: Mapping[str, Metric]) -> int:
    """How long after its decision a reward is mature: the longest window of its metrics."""
    return max(metrics[name].window_ms for name in names_in(parse(reward.expression)))


def is_binary(reward: Reward, metrics: Mapping[str, Metric]) -> bool:
    """Whether every reward is 0 or 1: that of one binary metric of which more is better."""
    tree = parse(reward.expression)
    if not isinstance(tree, str) or reward.default not in (0.0, 1.0):
        return False
    return metrics[tree].kind is Kind.BINARY and metrics[tree].better is Better.HIGHER


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = expression.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise BadExpression(f"must be metrics, numbers, + - * / and (), got {text[at : at + 20]!r}")
        tokens.append(found["token"])
        at = found.end()
    return tokens


class _Parser:
    """Reads tokens by recursive descent: a sum of products of factors. Mutable state: where it is."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Tree:
        """Everything."""
        tree = self._sum()
        if (token := self._next()) is not None:
            raise BadExpression(f"must end after a metric, a number or ), got {token!r}")
        return tree

    def _sum(self) -> Tree:
        tree = self._product()
        while (sign := self._next()) is not None and sign in _SUMS:
            self._at += 1
            tree = (sign, tree, self._product())
        return tree

    def _product(self) -> Tree:
        tree = self._factor()
        while (sign := self._next()) is not None and sign in _PRODUCTS:
            self._at += 1
            tree = (sign, tree, self._factor())
        return tree

    def _factor(self) -> Tree:
        token = self._next()
        self._at += 1
        match token:
            case "-":
                return ("-", 0.0, self._deeper(self._factor))
            case "(":
                tree = self._deeper(self._sum)
                if self._next() != ")":
                    raise BadExpression(f"must close its (, got {self._next() or 'its end'!r}")
                self._at += 1
                return tree
            case None | "+" | "*" | "/" | ")":
                raise BadExpression(f"must go on with a metric, a number or (, got {token or 'its end'!r}")
            case _:
                return float(token) if _NUMBER.fullmatch(token) else token

    def _deeper(self, read: Callable[[], Tree]) -> Tree:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadExpression(f"must be nested at most {MAX_DEPTH} times")
        tree = read()
        self._depth -= 1
        return tree

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None
