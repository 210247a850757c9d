"""What does a decision say of itself, and which secret vouches for it?"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b

import msgspec

from routing.errors import BadSnapshot
from routing.types import Reason

MAC_BYTES = 16
MAX_KEY_ID = 0xFFFF


class SigningKey(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A secret that signs decision tokens.

    Raises:
        BadSnapshot: the id does not fit into a token, or the secret is not 16 to 64 bytes long.
    """

    id: int
    secret: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAX_KEY_ID:
            raise BadSnapshot(f"keys.id must be in [0, {MAX_KEY_ID}], got {self.id}")
        if not 16 <= len(self.secret) <= 64:
            raise BadSnapshot(f"keys.secret must be 16 to 64 bytes long, got {len(self.secret)}")

    @cached_property
    def keyed(self) -> blake2b:
        """The hash before it has seen a token: to copy it is cheaper than to begin with the key each time."""
        return blake2b(digest_size=MAC_BYTES, key=self.secret)


class Claims(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a decision token says. `at_ms` is Unix time; `propensity_bp` in basis points.

    `is_kept`: the unit keeps the arm of an earlier decision, whose reason, propensity and epoch these are.
    """

    route_id: int
    arm_id: int
    unit_hash: int
    has_unit: bool
    reason: Reason
    propensity_bp: int
    epoch: int
    snapshot: int
    at_ms: int
    nonce: int
    is_kept: bool = False


def decision_id(claims: Claims) -> str:
    """The decision's id: 28 hex characters, time first, so that ids sort by time."""
    return id_of(claims.at_ms, claims.nonce)


def id_of(at_ms: int, nonce: int) -> str:
    """The id of a decision that is about to be made."""
    return f"{at_ms:012x}{nonce:016x}"
