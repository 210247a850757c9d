"""What does a decision token say, and did we sign it? Attribution without a look-up."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode
from binascii import Error as BadBase64
from binascii import b2a_base64
from collections.abc import Mapping
from struct import Struct
from typing import Final

from msgspec.structs import astuple

from routing.claims import MAC_BYTES, Claims, SigningKey
from routing.errors import BadToken
from routing.types import Reason

TOKEN_VERSION: Final = 1
# version, key id, flags, reason, route, arm, epoch, snapshot, propensity, unit hash, time, nonce
_LAYOUT: Final = Struct(">BHBBIIIQHQQQ")
_BODY_BYTES: Final = _LAYOUT.size
_TOKEN_BYTES = _BODY_BYTES + MAC_BYTES
_HAS_UNIT: Final = 0x01
_IS_KEPT: Final = 0x02
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_REASONS = tuple(Reason)
_REASON_CODES: Final = {reason: code for code, reason in enumerate(_REASONS)}


def sign(claims: Claims, key: SigningKey) -> str:
    """The token: at most 160 URL-safe characters, with a 128-bit keyed BLAKE2b over all that it says."""
    route, arm, unit, has_unit, reason, propensity, epoch, snapshot, at, nonce, is_kept = astuple(claims)
    code = _REASON_CODES[reason]
    flags = (_HAS_UNIT if has_unit else 0) | (_IS_KEPT if is_kept else 0)
    body = _LAYOUT.pack(
        TOKEN_VERSION, key.id, flags, code, route, arm, epoch, snapshot, propensity, unit, at, nonce
    )
    return _encode(body + _mac(body, key)).decode()


def verify(token: str, keys: Mapping[int, SigningKey]) -> Claims:
    """What a token says, once its signature has been checked.

    Raises:
        BadToken: it is malformed, of another version, or no key of ours has signed it.
    """
    raw = _decode(token)
    body, mac = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
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
        is_kept=bool(flags & _IS_KEPT),
    )


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
