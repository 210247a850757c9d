"""Which web pages train the models, and which are sent live?

The pages are real: the data set Phishing (UCI, “Website Phishing”), which comes inside the package river.
No page that is sent live was ever trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from river.datasets import Phishing

from app.demo.pages import Page

TRAINING_PAGES = 700


@dataclass(frozen=True, slots=True)
class Split:
    """All pages of the data set, divided at random."""

    training: tuple[Page, ...]
    live: tuple[Page, ...]


def load(seed: int) -> Split:
    """The data set in two parts, which the seed draws."""
    pages = [Page({name: float(value) for name, value in row.items()}, truth) for row, truth in Phishing()]
    Random(seed).shuffle(pages)  # noqa: S311 - a draw of rows, not a secret
    return Split(tuple(pages[:TRAINING_PAGES]), tuple(pages[TRAINING_PAGES:]))
