"""What the demonstration declares."""

from app.control.documents import spec_of
from app.control.schemas import RouteDocument
from app.demo.route import RAMP, SHORTEST_DAYS, declaration
from policies.spec import Policy, problems


def test_the_rule_is_the_default_one() -> None:
    """Nothing is made easier for the demonstration: of the policy only ramp, horizon and days are its own."""
    spec = spec_of(RouteDocument.model_validate(declaration("logreg-v1", "http://127.0.0.1:9001/score", 14)))
    assert problems(spec) == []
    assert spec.policy == Policy(
        goal="profit",
        horizon_days=14,
        ramp_bp=RAMP,
        day_length_ms=spec.policy.day_length_ms,
    )


def test_the_shortest_story_leaves_time_for_every_step() -> None:
    """The rule's days, and one more for each step of the ramp after the first, fit into the shortest run."""
    assert Policy().minimum_days + len(RAMP) - 1 <= SHORTEST_DAYS


def test_days_are_longer_than_outcomes_take() -> None:
    """A day can be judged before the next one ends, so that every day may take a step."""
    spec = spec_of(RouteDocument.model_validate(declaration("logreg-v1", "http://127.0.0.1:9001/score", 14)))
    slowest_ms = max([spec.upstream.timeout_ms, *(metric.window_ms for metric in spec.metrics)])
    assert slowest_ms < spec.policy.day_length_ms
