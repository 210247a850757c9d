"""The models that compete in the demonstration."""

import pytest

from app.demo.dataset import load
from app.demo.ledger import settle
from app.demo.models import ADDRESS, Name, decide, train


def _profit(name: Name, seed: int) -> float:
    """Cents a page, on pages that were not trained on."""
    split = load(seed)
    model = train(name, split.training, seed)
    accounts = [settle(decide(model.chance(page.features)), page.phishing) for page in split.live]
    return sum(account.profit for account in accounts) / len(accounts)


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_challenger_is_truly_better(seed: int) -> None:
    """On pages that were not trained on, gradient boosting brings at least 15 cents more a page."""
    assert _profit(Name.GBM, seed) - _profit(Name.LOGREG, seed) > 15


def test_the_champion_is_no_straw_man() -> None:
    """It earns more than blocking everything, and more than letting everything through."""
    live = load(1).live
    blocked = sum(-25 for page in live if not page.phishing) / len(live)
    allowed = sum(-150 if page.phishing else 100 for page in live) / len(live)
    assert _profit(Name.LOGREG, 1) > max(blocked, allowed)


def test_the_broken_challenger_is_a_good_model() -> None:
    """Its endpoint is what fails: the forest itself would beat the first champion."""
    assert _profit(Name.FOREST, 1) > _profit(Name.LOGREG, 1)


def test_the_champion_looks_at_less() -> None:
    """It sees what is known before a page is opened; the challengers see all nine features."""
    training = load(1).training
    assert train(Name.LOGREG, training, 1).features == ADDRESS
    assert len(train(Name.GBM, training, 1).features) == 9


def test_training_is_reproducible() -> None:
    """The same pages and seed make the same model."""
    split = load(1)
    first, second = (train(Name.FOREST, split.training, 1) for _ in range(2))
    features = [page.features for page in split.live[:50]]
    assert [first.chance(row) for row in features] == [second.chance(row) for row in features]
