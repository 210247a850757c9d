"""How shadow arms agree, as people and scripts read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.control.shadows import ShadowReport
from tests.app.cli.answering import answering
from tests.app.cli.programs import Session, invoke


@pytest.fixture
def described() -> Iterator[str]:
    """A control plane that answers everything with the example of its description."""
    extra = ShadowReport.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    examples: Any = extra["examples"]
    body = ShadowReport.model_validate(examples[0]).model_dump_json().encode()
    with answering(lambda method, path, sent: body) as url:
        yield url


def test_agreement_is_drawn_arm_by_arm(described: str) -> None:
    """Shares of the copies, then of each declared field, then which labels stood for which."""
    ran = invoke("get", "shadow", "ad-bidder", env={"KINGMAKER_SERVER": described})
    assert (ran.exit_code, ran.stderr) == (0, "")
    arms, predictions, labels = ran.stdout.split("\n\n")
    assert " ".join(arms.splitlines()[1].split()) == "gbm-v8 1000 99.8 % 100.0 % 42.0 % 12.5 9.8"
    assert predictions.splitlines()[1].split() == ["gbm-v8", "score", "998", "0", "42.0", "%", "0.013"]
    assert labels.splitlines()[2].split() == ["gbm-v8", "decision", "bid", "pass", "30"]
    ran = invoke("get", "shadow", "ad-bidder", "--json", env={"KINGMAKER_SERVER": described})
    assert json.loads(ran.stdout)["arms"][0]["copies"] == 1_000


def test_a_route_without_copies_says_so(kingmaker: Session, route: str) -> None:
    """In one line for people, as no arms for scripts; what is no time is refused."""
    assert kingmaker.ok("get", "shadow", route) == "no copies were sent in this time\n"
    span = ("--from", "2026-01-31T12:00:00Z", "--to", "2026-02-01T12:00:00Z")
    document = kingmaker.document("get", "shadow", route, *span)
    assert document == {
        "route": route,
        "since": "2026-01-31T12:00:00Z",
        "until": "2026-02-01T12:00:00Z",
        "arms": [],
    }
    assert "from" in kingmaker.refused("get", "shadow", route, "--from", "yesterday")
