"""Which other way of choosing arms is asked about?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from policies.errors import BadSpec
from routing.errors import BadWeights
from routing.weights import check_weights

if TYPE_CHECKING:
    from policies.spec import RouteSpec

COOLEST, HOTTEST = 1e-9, 1e12
"""Bounds of a softmax's temperature, in units of the reward."""

_SOFTMAX = "softmax="
_WHOLE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Always:
    """One arm at every decision."""

    arm: str


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every arm that answers, with the same probability."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A fixed split: arm → basis points. Arms that are not named get nothing."""

    shares: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a reward model promises, learned from the log: the arm that promises most, or by a softmax.

    The softmax has probabilities ∝ exp(promise/temperature).
    """

    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Thompson:
    """Thompson sampling on the terms of the route's bandit, learned from the log."""


Candidate: TypeAlias = Always | Uniform | Weights | Learned | Thompson


def parse_candidate(text: str) -> Candidate:
    """As it is written in a flag: `always:ARM`, `uniform`, `weights:a=9000,b=1000`, `bandit`, `learned`,
    `learned:softmax=0.1`.

    Raises:
        BadSpec: it is none of these.
    """
    match text.partition(":"):
        case "uniform", "", "":
            return Uniform()
        case "bandit", "", "":
            return Thompson()
        case "learned", "", "":
            return Learned()
        case "always", ":", arm if arm:
            return Always(arm)
        case "weights", ":", shares if (found := _shares(shares)) is not None:
            return Weights(found)
        case "learned", ":", choice if (temperature := _temperature(choice)) is not None:
            return Learned(temperature)
        case _:
            forms = "always:ARM, uniform, weights:ARM=BP,…, bandit, learned or learned:softmax=TEMPERATURE"
            raise BadSpec("policy", f"must be {forms}, got {text!r}")


def label_of(candidate: Candidate) -> str:
    """The same the other way round."""
    match candidate:
        case Always(arm):
            return f"always:{arm}"
        case Uniform():
            return "uniform"
        case Weights(shares):
            return "weights:" + ",".join(f"{arm}={share}" for arm, share in shares.items())
        case Learned(temperature):
            return "learned" if temperature is None else f"learned:softmax={temperature:g}"
        case Thompson():
            return "bandit"


def wire_of(candidate: Candidate) -> dict[str, object]:
    """As the API is asked about it."""
    match candidate:
        case Always(arm):
            return {"kind": "always", "arm": arm}
        case Uniform():
            return {"kind": "uniform"}
        case Weights(shares):
            return {"kind": "weights", "weights": dict(shares)}
        case Learned(None):
            return {"kind": "learned", "choose": "greedy"}
        case Learned(temperature):
            return {"kind": "learned", "choose": "softmax", "temperature": temperature}
        case Thompson():
            return {"kind": "bandit"}


def answering(spec: RouteSpec) -> tuple[str, ...]:
    """The arms of a route among which a candidate may choose."""
    return tuple(arm.name for arm in spec.arms if arm.answers)


def check_candidate(candidate: Candidate, spec: RouteSpec) -> None:
    """Refuse a candidate that this route cannot have.

    Raises:
        BadSpec: an arm that answers nobody, shares that are no split, a temperature out of bounds, a bandit
            where weights divide the traffic.
    """
    arms = answering(spec)
    match candidate:
        case Always(arm):
            if arm not in arms:
                bound = f"must be an arm of route {spec.name!r} that answers callers ({', '.join(arms)})"
                raise BadSpec("policy.arm", f"{bound}, got {arm!r}")
        case Weights(shares):
            try:
                check_weights(shares, arms)
            except BadWeights as error:
                raise BadSpec("policy.weights", f"cannot be: {error}") from error
        case Learned(temperature):
            if temperature is not None and not COOLEST <= temperature <= HOTTEST:
                bound = f"must be in [{COOLEST:g}, {HOTTEST:g}]"
                raise BadSpec("policy.temperature", f"{bound}, got {temperature:g}")
        case Thompson():
            if spec.bandit is None:
                bound = f"must not be bandit where weights divide the traffic of route {spec.name!r}"
                raise BadSpec("policy.kind", f"{bound}, got 'bandit'")
        case Uniform():
            pass


def _shares(text: str) -> dict[str, int] | None:
    """Each arm once, with a whole number."""
    found: dict[str, int] = {}
    for part in text.split(","):
        arm, _, share = part.strip().partition("=")
        if not arm or arm in found or not _WHOLE.fullmatch(share):
            return None
        found[arm] = int(share)
    return found


def _temperature(text: str) -> float | None:
    try:
        return float(text.removeprefix(_SOFTMAX)) if text.startswith(_SOFTMAX) else None
    except ValueError:
        return None
