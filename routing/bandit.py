"""What does a gateway know of a route's bandit? Its terms, and what was learnt, as the snapshot brings it."""

from __future__ import annotations

import msgspec


class Posterior(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt of one arm from `rewards` matured rewards.

    `mean` (d,) and `covariance` (d, d) of its coefficients, as float64, little-endian, row by row. Of 0/1
    rewards without a context `successes` and `failures`, discounted, say it all.
    """

    arm_id: int
    rewards: int
    mean: bytes = b""
    covariance: bytes = b""
    successes: float = 0.0
    failures: float = 0.0


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt of the arms by `at_ms`, Unix ms, with the features of a schema version (0: none)."""

    at_ms: int
    schema: int
    arms: tuple[Posterior, ...] = ()


class BanditTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How unpinned traffic is divided by Thompson sampling.

    No arm has less than `floor_bp` nor more than its cap (arm id → bp). An arm with fewer than `warm_up`
    rewards has a uniform share. `is_binary`: rewards are 0 or 1, and there is no context. `is_apprentice`:
    the champion answers, and what the bandit would have done is written down. `learned` is None until the
    learner has looked at the log.
    """

    floor_bp: int = 100
    caps_bp: dict[int, int] = {}
    warm_up: int = 20
    is_binary: bool = False
    is_apprentice: bool = False
    learned: Learned | None = None
