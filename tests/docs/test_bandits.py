"""The guide to bandits shows what can be declared."""

from __future__ import annotations

import re
from pathlib import Path

from app.config import load_configuration
from app.control.documents import parse_route

PAGE = (Path(__file__).parents[2] / "docs/bandits.md").read_text()


def test_the_route_of_the_guide_can_be_declared() -> None:
    """As it stands there."""
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (document,) = load_configuration(shown, "guide").routes
    spec = parse_route(document)
    assert spec.bandit is not None
    assert (spec.bandit.reward.expression, spec.bandit.caps) == ("revenue - cost", {"gbm-v7": 5_000})
