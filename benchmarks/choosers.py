"""Chooses arms again and again, in a process of its own: by our code, or as a peer's caller does.

`python -m benchmarks.choosers WHO` says in a line of JSON what it offers; each question for one of these is
answered by how many µs of processor time a choice took. Everybody has the same requests, as a caller has
them: values by name. What becomes of them is part of the choice: for us they are read, checked and encoded,
for Vowpal Wabbit written as its text and parsed. MABWiser, which takes rows of numbers, is given them.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from random import Random
from typing import Any

import msgspec
import numpy as np

from app.gateway.decisions import decide
from app.gateway.draws import Draws
from app.gateway.snapshots import routing_of
from app.version import IS_COMPILED
from benchmarks.contexts import WIDE, Raw, contexts
from benchmarks.routes import thompson
from routing.assignment import Asked, Plan
from routing.context import Encoder
from routing.features import Feature, FeatureType
from routing.linear_model import Array
from routing.types import Reason

KINGMAKER = "kingmaker"
VOWPAL_WABBIT = "vowpal wabbit"
MABWISER = "mabwiser"

ARMS = (2, 5, 10)
BATCH = "batch, 2 arms"
NO_CONTEXT = "2 arms, no context"

_REQUESTS = 4_000
_LESSONS = 2_000
_SEED = 20_260_101
_TURN = 50
_NONCE_MASK = (1 << 64) - 1
_NUMERIC = frozenset(feature.name for feature in WIDE if feature.type is FeatureType.NUMERIC)


class Offer(msgspec.Struct, frozen=True):
    """What a process can be asked for: ways to choose, each in a setting. `is_compiled`: our code is."""

    is_compiled: bool
    ways: list[tuple[str, str]]


class Question(msgspec.Struct, frozen=True):
    """A way in a setting, and for how long it is to be tried."""

    setting: str
    way: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Way:
    """A way to choose. Called with 0, 1, 2, … `choose` makes so many `choices` at each call."""

    setting: str
    name: str
    choose: Callable[[int], object]
    choices: int = 1


def between(arms: int) -> str:
    """The setting of a choice by context between so many arms."""
    return f"{arms} arms"


def main() -> None:
    """Offer, then answer until nobody asks any more."""
    ways = {(way.setting, way.name): way for way in _WHO[sys.argv[1]]()}
    gc.collect()
    gc.freeze()  # as a worker does
    _say(Offer(IS_COMPILED, list(ways)))
    for line in sys.stdin.buffer:
        question = msgspec.json.decode(line, type=Question)
        _say(_cost_us(ways[question.setting, question.way], question.seconds))


def _say(what: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def _cost_us(way: Way, seconds: float) -> float:
    """µs of processor time for each choice."""
    calls, turn = 0, max(1, _TURN // way.choices)
    began = now = time.process_time()
    while now < began + seconds:
        for number in range(calls, calls + turn):
            way.choose(number)
        calls += turn
        now = time.process_time()
    return 1e6 * (now - began) / (calls * way.choices)


class _Worker:
    """Decides as a gateway worker does, from the values of a request on."""

    def __init__(self, arms: int, features: Sequence[Feature]) -> None:
        snapshot = thompson(range(1, arms + 1), features)
        self._routing = routing_of(snapshot, {})
        self._plan = Plan(snapshot.routes[0])
        self._raws = contexts(features, _REQUESTS)
        self._draws = Draws()
        reason = self._plan.assign(self._asked(0)).reason
        assert reason is Reason.BANDIT, f"{reason}: {self._plan.fault}"

    def assign(self, number: int) -> object:
        """An arm, why, and the probability of each."""
        return self._plan.assign(self._asked(number))

    def decide(self, number: int) -> object:
        """The same, with its token."""
        return decide(self._routing, self._plan, self._asked(number))

    def _asked(self, number: int) -> Asked:
        bits, encoder = self._draws.getrandbits(128), self._plan.encoder
        context = None if encoder is None else encoder.read(self._raws[number % _REQUESTS])
        at_ms = time.time_ns() // 1_000_000
        return Asked(f"user-{number}", bits >> 64, None, at_ms, bits & _NONCE_MASK, None, context)


def _kingmaker() -> Iterator[Way]:
    for arms in ARMS:
        worker = _Worker(arms, WIDE)
        yield Way(between(arms), "assigned", worker.assign)
        yield Way(between(arms), "assigned and signed", worker.decide)
    yield Way(NO_CONTEXT, "assigned", _Worker(2, ()).assign)
    many = _Many()
    yield Way(BATCH, "of rows", many.divide, _REQUESTS)
    yield Way(BATCH, "of values, encoding included", many.encode_and_divide, _REQUESTS)


class _Many:
    """Shares for many contexts at once: what a replay or an evaluation of the log asks for."""

    def __init__(self) -> None:
        bandit = Plan(thompson((1, 2), WIDE).routes[0]).bandit
        assert bandit is not None
        self._bandit = bandit
        self._encoder = Encoder(WIDE)
        self._values = [self._encoder.read(raw) for raw in contexts(WIDE, _REQUESTS)]
        self._rows = self._encoder.encode_many(self._values)

    def divide(self, _: int) -> object:
        """The shares of both arms in all contexts, which are encoded."""
        return self._bandit.shares_many(self._rows)

    def encode_and_divide(self, _: int) -> object:
        """The same, of contexts that are not."""
        return self._bandit.shares_many(self._encoder.encode_many(self._values))


class _Bag:
    """Vowpal Wabbit, five models that are each asked for the best arm: its nearest to Thompson sampling."""

    def __init__(self, arms: int, options: str) -> None:
        workspace = import_module("vowpalwabbit").Workspace
        self._model = workspace(f"--quiet --random_seed 1 --bag 5 {options}")
        self._arms = range(arms)
        self._raws = contexts(WIDE, _REQUESTS)
        self._draws = Random(_SEED)

    def learn(self) -> None:
        """Reads some decisions with their costs."""
        for raw in self._raws[:_LESSONS]:
            arm, cost = self._draws.choice(self._arms), self._draws.random()
            self._model.learn(self._example(raw, arm, f"{cost:.3f}:{1 / len(self._arms):.3f} "))

    def choose(self, number: int) -> object:
        """The probability of each arm, and a draw by these."""
        chances = self._model.predict(self._example(self._raws[number % _REQUESTS]))
        return self._draws.choices(self._arms, chances)

    def _example(self, raw: Raw, arm: int = 0, label: str = "") -> str | list[str]:
        raise NotImplementedError


class _Fixed(_Bag):
    """Of arms that it knows by their numbers: `--cb_explore`."""

    def __init__(self, arms: int) -> None:
        super().__init__(arms, f"--cb_explore {arms}")

    def _example(self, raw: Raw, arm: int = 0, label: str = "") -> str | list[str]:
        return f"{arm + 1}:{label}|s {_text(raw)}" if label else f"|s {_text(raw)}"


class _Described(_Bag):
    """Of arms that have features, each combined with those of the context: `--cb_explore_adf`."""

    def __init__(self, arms: int) -> None:
        super().__init__(arms, "--cb_explore_adf --interactions sa")
        self._actions = [f"|a arm={number}" for number in self._arms]

    def _example(self, raw: Raw, arm: int = 0, label: str = "") -> str | list[str]:
        lines = [f"shared |s {_text(raw)}", *self._actions]
        if label:
            lines[1 + arm] = f"0:{label}{lines[1 + arm]}"
        return lines


def _text(raw: Raw) -> str:
    """Values as Vowpal Wabbit writes features."""
    return " ".join([f"{name}:{raw[name]}" if name in _NUMERIC else f"{name}={raw[name]}" for name in raw])


def _vowpal_wabbit() -> Iterator[Way]:
    for arms in ARMS:
        for name, bag in (("cb_explore", _Fixed(arms)), ("cb_explore_adf", _Described(arms))):
            bag.learn()
            yield Way(between(arms), name, bag.choose)


def _mabwiser() -> Iterator[Way]:
    """Linear Thompson sampling, by draws; it tells the arm, not how probable it was."""
    package = import_module("mabwiser.mab")
    encoder, draws = Encoder(WIDE), np.random.default_rng(_SEED)
    rows = encoder.encode_many([encoder.read(raw) for raw in contexts(WIDE, _REQUESTS)])
    for arms in ARMS:
        model = package.MAB(list(range(arms)), package.LearningPolicy.LinTS(), seed=_SEED)
        model.fit(draws.integers(0, arms, _LESSONS), draws.normal(size=_LESSONS), rows[:_LESSONS])
        yield Way(between(arms), "LinTS", partial(_predict, model, rows))
        if between(arms) in BATCH:
            yield Way(BATCH, "LinTS of rows", partial(_predict_many, model, rows), _REQUESTS)


def _predict(model: Any, rows: Array, number: int) -> object:
    place = number % len(rows)
    return model.predict(rows[place : place + 1])


def _predict_many(model: Any, rows: Array, _: int) -> object:
    return model.predict(rows)


_WHO = {KINGMAKER: _kingmaker, VOWPAL_WABBIT: _vowpal_wabbit, MABWISER: _mabwiser}

if __name__ == "__main__":
    main()
