"""What is known of a web page, and in which order are pages sent?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True, slots=True)
class Page:
    """What is seen of a web page, each feature in [0, 1], and whether it turned out to be phishing."""

    features: dict[str, float]
    phishing: bool


def passes(pages: Sequence[Page], seed: int) -> Iterator[Page]:
    """Every page once, then every page again in another order, without end."""
    draws = Random(seed)  # noqa: S311 - an order of rows, not a secret
    order = list(pages)
    while order:
        draws.shuffle(order)
        yield from order


def write(pages: Sequence[Page], path: Path) -> None:
    """Write pages down for an endpoint to train on."""
    path.write_text(json.dumps([asdict(page) for page in pages]), "utf-8")


def read(path: Path) -> tuple[Page, ...]:
    """The pages of a file."""
    return tuple(Page(**page) for page in json.loads(path.read_text("utf-8")))
