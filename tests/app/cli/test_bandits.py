"""What a bandit has learnt, as people and scripts read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.control.bandits import BanditView
from app.control.examples import BANDIT
from tests.app.cli.answering import answering
from tests.app.cli.programs import Session, invoke

OTHER: dict[str, Any] = {
    "arm": "logreg-v6",
    "pulls": 5_900,
    "rewards": 50,
    "worth": 31.5,
    "effective_samples": 48.25,
    "warm": False,
    "mean_reward": None,
    "share": None,
    "coefficients": [{"column": "intercept", "mean": 0.1, "low": 0.05, "high": 0.15}],
}
SEGMENTS = [
    {"feature": "country", "value": "DE", "n": 412, "shares": {"gbm-v7": 4_990.2, "logreg-v6": 5_009.8}},
    {"feature": "country", "value": None, "n": 1, "shares": {"gbm-v7": 100.0, "logreg-v6": 9_900.0}},
]


class Control:
    """A control plane that answers everything with a bandit, and keeps what it was asked."""

    def __init__(self) -> None:
        first = {**BANDIT["arms"][0], "worth": 2_950.2}
        self.answer = {**BANDIT, "arms": [first, OTHER], "segments": SEGMENTS}
        self.asked: list[tuple[str, str, Any]] = []
        self.env: dict[str, str] = {}

    def body(self, method: str, path: str, sent: Any) -> bytes:
        """What is answered."""
        self.asked.append((method, path, sent))
        return BanditView.model_validate(self.answer).model_dump_json().encode()


@pytest.fixture
def control() -> Iterator[Control]:
    """One that can be called; `env` says where."""
    here = Control()
    with answering(here.body) as url:
        here.env = {"KINGMAKER_SERVER": url}
        yield here


def drawn(text: str) -> list[list[str]]:
    """The tables of an answer, line by line, with single spaces."""
    return [[" ".join(line.split()) for line in part.splitlines()] for part in text.split("\n\n")]


def test_a_bandit_is_drawn_by_arms_segments_and_coefficients(control: Control) -> None:
    """Its terms and how far it is, then a table each; what is not known is a dash."""
    ran = invoke("get", "bandit", "ad-bidder", env=control.env)
    assert (ran.exit_code, ran.stderr) == (0, "")
    terms, arms, segments, coefficients = drawn(ran.stdout)
    assert "reward revenue - 0.5 * cost (without an outcome 0)" in terms
    assert "caps (bp) gbm-v7 5000" in terms
    assert "pending 1200, the first due 2026-01-31 12:00:00Z" in terms
    assert "fault none" in terms
    assert arms == [
        "arm share (bp) pulls rewards worth now effective warm mean reward",
        "gbm-v7 4812 4100 3500 2950 3120 yes 0.21",
        "logreg-v6 - 5900 50 31.5 48.25 no -",
    ]
    assert segments[1:] == ["country DE 412 4990 5010", "country (missing) 1 100 9900"]
    assert coefficients == [
        "coefficient gbm-v7 logreg-v6",
        "intercept 0.1800 [0.1500, 0.2100] 0.1000 [0.05000, 0.1500]",
    ]
    ran = invoke("get", "bandit", "ad-bidder", "--json", env=control.env)
    assert json.loads(ran.stdout)["arms"][0]["pulls"] == 4_100


def test_an_apprentice_and_a_fault_are_told_in_words(control: Control) -> None:
    """A bound on what it would have earned, and why the champion answers."""
    totals = {"decisions": 9, "agreement": 0.5, "earned": 2.0, "actual": 8.0, "share_of_reward": 0.25}
    faulty = {"fault": "it has just begun", "published_at": None}
    control.answer = {**BANDIT, **faulty, "mode": "apprentice", "apprentice": totals}
    terms = drawn(invoke("get", "bandit", "ad-bidder", env=control.env).stdout)[0]
    assert "fault the champion answers: it has just begun" in terms
    assert "agreement 50.0 %" in terms
    assert "would have earned at least 2 of 8 (25.0 %), if no reward is negative" in terms


def test_a_fault_that_gateways_have_not_heard_of_is_told_as_such(control: Control) -> None:
    """Until they are told they go on by what they know, of which the time is said."""
    since = "2026-01-31T12:00:00Z"
    control.answer = {**BANDIT, "fault": "sums of arm 2 are damaged", "published_at": since}
    terms = drawn(invoke("get", "bandit", "ad-bidder", env=control.env).stdout)[0]
    assert (
        "fault gateways may still choose by what was published at 2026-01-31 12:00:00Z, then the champion "
        "answers: sums of arm 2 are damaged" in terms
    )
    assert "published at 2026-01-31 12:00:00Z" in terms


def test_a_rebuild_needs_a_reason(control: Control) -> None:
    """Which is sent, and the bandit is drawn as it stands then; without one nothing is asked."""
    assert invoke("bandit", "rebuild", "ad-bidder", env=control.env).exit_code == 2
    assert control.asked == []
    ran = invoke("bandit", "rebuild", "ad-bidder", "--reason", "doubts", env=control.env)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert control.asked == [("POST", "/v1/routes/ad-bidder/bandit/rebuild", {"reason": "doubts"})]
    assert "pulls" in ran.stdout


def test_a_route_that_weights_divide_has_no_bandit(kingmaker: Session, route: str) -> None:
    """That is said in a line, with exit code 1."""
    assert "has no bandit" in kingmaker.refused("get", "bandit", route)
    assert "has no bandit" in kingmaker.refused("bandit", "rebuild", route, "--reason", "why not")
