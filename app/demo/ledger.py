"""What does a decision about a page earn, and what does it cost, now that the truth is known?

The amounts are ours, in cents a page; pages and truths are the data set's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Decision(StrEnum):
    """What a model decides about a page."""

    ALLOW = "allow"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Account:
    """What one decision brought, in cents."""

    revenue: int
    cost: int

    @property
    def profit(self) -> int:
        """Revenue less cost."""
        return self.revenue - self.cost


LEDGER = {
    (Decision.ALLOW, False): Account(revenue=100, cost=0),
    (Decision.ALLOW, True): Account(revenue=0, cost=150),
    (Decision.BLOCK, False): Account(revenue=0, cost=25),
    (Decision.BLOCK, True): Account(revenue=0, cost=0),
}
"""By decision, and by whether the page was phishing."""


def settle(decision: Decision, phishing: bool) -> Account:
    """The account of a decision."""
    return LEDGER[decision, phishing]
