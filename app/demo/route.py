"""What the demonstration declares: one route with its champion. Challengers come later, through the API."""

from __future__ import annotations

from typing import Any

ROUTE = "web-filter"
UNIT_HEADER = "X-User-Id"
GOAL = "profit"
DAY_SECONDS = 5
WINNING_DAYS = 3
CONFIDENCE = 0.975
MAX_EXPECTED_LOSS = 0.005
RAMP = (2_500, 5_000, 10_000)
FIRST_SHARE = 1_000
MINIMUM_DAYS = 7
SHORTEST_DAYS = 10
"""The seven of the rule, two more steps of the ramp, and one in case a day is not won."""

METRICS = ("revenue", "cost", GOAL)


def declaration(champion: str, url: str, days: int) -> dict[str, Any]:
    """The route; its rollout ends undecided after so many days.

    The rule of promotion is the default one, with a ramp. Only its days are short.
    """
    return {
        "route": ROUTE,
        "unit": {"header": UNIT_HEADER},
        "arms": [{"name": champion, "url": url, "role": "champion"}],
        "split": {"weights": {champion: 10_000}},
        "metrics": [_metric(name) for name in METRICS],
        "policy": {
            "goal": GOAL,
            "confidence": CONFIDENCE,
            "max_expected_loss": MAX_EXPECTED_LOSS,
            "winning_days": WINNING_DAYS,
            "minimum_days": MINIMUM_DAYS,
            "horizon_days": days,
            "guardrails": [{"metric": "error", "max_relative_increase": 0.10, "confidence": 0.99}],
            "ramp": list(RAMP),
            "day": {"length": f"{DAY_SECONDS}s"},
        },
        "upstream": {"timeout": "2s"},
    }


def _metric(name: str) -> dict[str, str]:
    better = "lower" if name == "cost" else "higher"
    return {"name": name, "kind": "continuous", "better": better, "window": "2s"}
