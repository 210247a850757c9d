"""Which arm did a unit get first, and how likely was that? What is kept where units keep their first arm."""

from __future__ import annotations

import msgspec

from routing.types import DRAWN, TOTAL_BP, Reason

_BITS = {"arm_id": 32, "champion_id": 32, "epoch": 32, "at_ms": 47}


class FirstArm(msgspec.Struct, frozen=True, array_like=True):
    """The arm that a unit got when traffic was first divided for it, at `at_ms` (Unix ms).

    `probabilities`: arm id → bp, of all arms that it could have been; `epoch`: the allocation epoch;
    `champion_id`: who was champion then.

    Raises:
        ValueError: an arm that had no probability, probabilities that do not sum to 10,000 bp, a reason that
            is no draw, or a number that no decision has.
    """

    arm_id: int
    champion_id: int
    reason: Reason
    epoch: int
    at_ms: int
    probabilities: dict[int, int]

    def __post_init__(self) -> None:
        if self.reason not in DRAWN:
            raise ValueError(f"reason must be one of {[str(reason) for reason in DRAWN]}, got {self.reason}")
        for name, bits in _BITS.items():
            if not 0 <= (value := getattr(self, name)) < 1 << bits:
                raise ValueError(f"{name} must be in [0, {(1 << bits) - 1}], got {value}")
        if (least := min(self.probabilities.values(), default=0)) < 0:
            raise ValueError(f"probabilities must be at least 0, got {least}")
        if (total := sum(self.probabilities.values())) != TOTAL_BP:
            raise ValueError(f"probabilities must sum to {TOTAL_BP}, got {total}")
        if not 0 < (share := self.probabilities.get(self.arm_id, 0)) <= TOTAL_BP:
            raise ValueError(f"probabilities.{self.arm_id} must be in [1, {TOTAL_BP}], got {share}")

    @property
    def propensity_bp(self) -> int:
        """With which probability it was this arm."""
        return self.probabilities[self.arm_id]


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FirstArm).decode


def decoded(content: bytes) -> FirstArm | None:
    """The other way round; None for what is none."""
    try:
        return _decode(content)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
