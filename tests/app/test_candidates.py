"""Candidates are written as they are read, and refused where a route cannot have them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.candidates import (
    Always,
    Candidate,
    Learned,
    Thompson,
    Uniform,
    Weights,
    answering,
    check_candidate,
    label_of,
    parse_candidate,
    wire_of,
)
from app.control.off_policy import CandidateDocument, candidate_of
from policies.bandits import BanditSpec
from policies.errors import BadSpec
from policies.rewards import Reward
from policies.spec import ArmSpec
from routing.types import Role
from tests.app.logged_world import SPEC

BANDIT = replace(SPEC, bandit=BanditSpec(Reward("conversion")), weights={"old": 10_000, "new": 0})

WRITTEN: dict[str, Candidate] = {
    "always:new": Always("new"),
    "uniform": Uniform(),
    "weights:old=9000,new=1000": Weights({"old": 9_000, "new": 1_000}),
    "learned": Learned(),
    "learned:softmax=0.1": Learned(0.1),
    "bandit": Thompson(),
}


@pytest.mark.parametrize(("text", "candidate"), WRITTEN.items())
def test_a_candidate_is_written_as_it_is_read(text: str, candidate: Candidate) -> None:
    """In flags, and in the API's documents."""
    assert parse_candidate(text) == candidate
    assert label_of(candidate) == text
    assert candidate_of(CandidateDocument.model_validate(wire_of(candidate))) == candidate
    check_candidate(candidate, BANDIT)


@pytest.mark.parametrize(
    "text",
    [
        "", "sometimes", "always", "always:", "uniform:new", "weights", "weights:", "weights:old", "bandit:",
        "weights:old=x", "weights:old=-1", "weights:=1", "weights:old=1,old=1", "weights:old=²", "learned:",
        "learned:greedy", "learned:softmax", "learned:softmax=", "learned:softmax=hot", "Uniform",
    ],
)  # fmt: skip
def test_what_is_no_candidate_is_refused(text: str) -> None:
    """With what may stand there, and what did."""
    with pytest.raises(BadSpec, match="must be ") as caught:
        parse_candidate(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (
            Always("next"),
            "policy.arm must be an arm of route 'ads' that answers callers (old, new), got 'next'",
        ),
        (
            Always("dark"),
            "policy.arm must be an arm of route 'ads' that answers callers (old, new), got 'dark'",
        ),
        (Weights({"old": 9_000}), "policy.weights cannot be: weights must sum to 10000, got 9000"),
        (Weights({"dark": 10_000}), "policy.weights cannot be: weights names unknown arm 'dark'"),
        (
            Weights({"old": 11_000, "new": -1_000}),
            "policy.weights cannot be: weights.old must be in [0, 10000]",
        ),
        (Learned(0.0), "policy.temperature must be in [1e-09, 1e+12], got 0"),
        (Learned(1e13), "policy.temperature must be in [1e-09, 1e+12], got 1e+13"),
        (Learned(float("nan")), "policy.temperature must be in [1e-09, 1e+12], got nan"),
        (Thompson(), "policy.kind must not be bandit where weights divide the traffic of route 'ads'"),
    ],
)
def test_a_route_cannot_have_every_candidate(candidate: Candidate, said: str) -> None:
    """Arms must answer callers, shares be a split, temperatures be finite, and a bandit be there."""
    shadow = ArmSpec("dark", "http://127.0.0.1:9000/dark", Role.SHADOW)
    spec = replace(SPEC, arms=(*SPEC.arms, shadow))
    assert answering(spec) == ("old", "new")
    with pytest.raises(BadSpec) as caught:
        check_candidate(candidate, spec)
    assert str(caught.value).startswith(said)
