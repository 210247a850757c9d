"""What does a decision token say, and did we sign it? Attribution without a look-up."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode
from binascii import Error as BadBase64
from binascii import b2a_base64
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from struct import Struct
from typing import Final

import msgspec

from routing.errors import BadSnapshot, BadToken
from routing.types import Reason

TOKEN_VERSION: Final = 1
MAC_BYTES = 16
MAX_KEY_ID = 0xFFFF
# version, key id, flags, reason, route, arm, epoch, snapshot, propensity, unit hash, time, nonce
_LAYOUT: Final = Struct(">BHBBIIIQHQQQ")
_TOKEN_BYTES = _LAYOUT.size + MAC_BYTES
_HAS_UNIT: Final = 0x01
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_REASONS = tuple(Reason)
_REASON_CODES: Final = {reason: code for code, reason in enumerate(_REASONS)}


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
    """What a decision token says. `at_ms` is Unix time; `propensity_bp` in basis points."""

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


def sign(claims: Claims, key: SigningKey) -> str:
    """The token: at most 160 URL-safe characters, with a 128-bit keyed BLAKE2b over all that it says."""
    body = _LAYOUT.pack(
        TOKEN_VERSION,
        key.id,
        _HAS_UNIT if claims.has_unit else 0,
        _REASON_CODES[claims.reason],
        claims.route_id,
        claims.arm_id,
        claims.epoch,
        claims.snapshot,
        claims.propensity_bp,
        claims.unit_hash,
        claims.at_ms,
        claims.nonce,
    )
    return _encode(body + _mac(body, key)).decode()


def verify(token: str, keys: Mapping[int, SigningKey]) -> Claims:
    """What a token says, once its signature has been checked.

    Raises:
        BadToken: it is malformed, of another version, or no key of ours has signed it.
    """
    raw = _decode(token)
    body, mac = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
    version, key_id, flags, reason, route, arm, epoch, snapshot, propensity, unit, at, nonce = _LAYOUT.unpack(
        body
    )
    key = keys.get(key_id)
    if version != TOKEN_VERSION or key is None or not hmac.compare_digest(mac, _mac(body, key)):
        raise BadToken("decision was not signed by this gateway")
    if reason >= len(_REASONS):
        raise BadToken(f"decision must have a reason below {len(_REASONS)}, got {reason}")
    return Claims(
        route_id=route,
        arm_id=arm,
        unit_hash=unit,
        has_unit=bool(flags & _HAS_UNIT),
        reason=_REASONS[reason],
        propensity_bp=propensity,
        epoch=epoch,
        snapshot=snapshot,
        at_ms=at,
        nonce=nonce,
    )


def decision_id(claims: Claims) -> str:
    """The decision's id: 28 hex characters, time first, so that ids sort by time."""
    return f"{claims.at_ms:012x}{claims.nonce:016x}"


def _mac(body: bytes, key: SigningKey) -> bytes:
    state = key.keyed.copy()
    state.update(body)
    return state.digest()


def _encode(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=")


def _decode(token: str) -> bytes:
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (BadBase64, ValueError) as error:
        raise BadToken("decision is not a token: it is not URL-safe base64") from error
    if len(raw) != _TOKEN_BYTES or _encode(raw) != token.encode():
        raise BadToken(f"decision is not a token: got {len(token)} characters")
    return raw
