"""What decisions earn and cost."""

import pytest

from app.demo.ledger import LEDGER, Decision, settle


def test_the_ledger_knows_every_case() -> None:
    """Every decision about every kind of page has an account."""
    assert set(LEDGER) == {(decision, truth) for decision in Decision for truth in (False, True)}


@pytest.mark.parametrize(
    ("decision", "phishing", "profit"),
    [
        (Decision.ALLOW, False, 100),
        (Decision.ALLOW, True, -150),
        (Decision.BLOCK, False, -25),
        (Decision.BLOCK, True, 0),
    ],
)
def test_profit_is_revenue_less_cost(decision: Decision, phishing: bool, profit: int) -> None:
    """An honest page earns when it is let through; phishing costs then, and a wrong block costs a little."""
    account = settle(decision, phishing)
    assert account.profit == account.revenue - account.cost == profit


@pytest.mark.parametrize("phishing", [False, True])
def test_the_right_decision_pays_best(phishing: bool) -> None:
    """Whatever a page is, deciding rightly brings more than deciding wrongly."""
    right = Decision.BLOCK if phishing else Decision.ALLOW
    wrong = Decision.ALLOW if phishing else Decision.BLOCK
    assert settle(right, phishing).profit > settle(wrong, phishing).profit
