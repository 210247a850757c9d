"""Which models compete, and how is each trained? Three of different quality, each an ordinary one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from app.demo.ledger import Decision
from app.demo.pages import Page

ADDRESS = ("age_of_domain", "https", "ip_in_url", "long_url")
"""What is known of a page before it is opened."""


class Name(StrEnum):
    """The arms of the story."""

    LOGREG = "logreg-v1"
    GBM = "gbm-v2"
    FOREST = "forest-v3"


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier that has been trained, and the features that it looks at."""

    classifier: Any
    features: tuple[str, ...]

    def chance(self, features: dict[str, float]) -> float:
        """The chance that a page is phishing."""
        row = np.array([[features[name] for name in self.features]])
        return float(self.classifier.predict_proba(row)[0, 1])


def train(name: Name, pages: Sequence[Page], seed: int) -> Model:
    """The model of this name, trained on these pages."""
    classifier = _CLASSIFIERS[name](seed)
    features = ADDRESS if name is Name.LOGREG else tuple(sorted(pages[0].features))
    rows = np.array([[page.features[feature] for feature in features] for page in pages])
    classifier.fit(rows, np.array([page.phishing for page in pages]))
    return Model(classifier, features)


def decide(chance: float) -> Decision:
    """Block what is more likely phishing than not."""
    return Decision.BLOCK if chance > 0.5 else Decision.ALLOW


def _logreg(seed: int) -> Any:
    return LogisticRegression(random_state=seed)


def _gbm(seed: int) -> Any:
    return GradientBoostingClassifier(random_state=seed)


def _forest(seed: int) -> Any:
    return RandomForestClassifier(n_estimators=20, random_state=seed)


_CLASSIFIERS: dict[Name, Callable[[int], Any]] = {
    Name.LOGREG: _logreg,
    Name.GBM: _gbm,
    Name.FOREST: _forest,
}
