"""Whatever a decision's token may claim, for claims about all of it."""

from __future__ import annotations

from hypothesis import strategies as st

from routing.claims import Claims
from routing.types import TOTAL_BP, Reason


def unsigned(bits: int) -> st.SearchStrategy[int]:
    """Unsigned integers, their bounds among them."""
    return st.integers(0, 2**bits - 1)


CLAIMED = st.builds(
    Claims,
    route_id=unsigned(32),
    arm_id=unsigned(32),
    unit_hash=unsigned(64),
    has_unit=st.booleans(),
    reason=st.sampled_from(Reason),
    propensity_bp=st.integers(0, TOTAL_BP),
    epoch=unsigned(32),
    snapshot=unsigned(64),
    at_ms=unsigned(47),
    nonce=unsigned(64),
)
