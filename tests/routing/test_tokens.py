"""A token comes back as it was sealed, and no changed, cut or foreign one opens."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import tokens
from routing.claims import Claims, SigningKey, decision_id
from routing.errors import BadSnapshot, BadToken
from routing.tokens import sign, verify
from routing.types import Reason
from tests.routing.claimed import CLAIMED, unsigned

KEY = SigningKey(id=7, secret=b"k" * 32)
OTHER = SigningKey(id=7, secret=b"o" * 32)
NEXT = SigningKey(id=8, secret=b"n" * 32)
CLAIMS = Claims(
    route_id=1,
    arm_id=2,
    unit_hash=0x0123456789ABCDEF,
    has_unit=True,
    reason=Reason.SPLIT,
    propensity_bp=1_000,
    epoch=3,
    snapshot=4,
    at_ms=1_767_225_600_000,
    nonce=0xFEDCBA9876543210,
)
GOLDEN = "AQAHAQEAAAABAAAAAgAAAAMAAAAAAAAABAPoASNFZ4mrze8AAAGbdtqoAP7cuph2VDIQpvoxxo38popDRWNY6tdPmA"
BODY = urlsafe_b64decode(GOLDEN + "==")[:-16]
KEYS = st.builds(SigningKey, id=unsigned(16), secret=st.binary(min_size=16, max_size=64))


@given(claims=CLAIMED, key=KEYS)
def test_a_token_comes_back_as_it_was_sealed(claims: Claims, key: SigningKey) -> None:
    """Every claim, for every key that can be."""
    assert verify(sign(claims, key), {key.id: key}) == claims


@given(claims=CLAIMED, key=KEYS)
def test_a_token_is_short_and_goes_into_any_header_or_path(claims: Claims, key: SigningKey) -> None:
    """At most 160 characters, none of which needs escaping in a URL."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,160}", sign(claims, key))


def test_tokens_of_this_version_never_change() -> None:
    """A token that was handed out months ago still says the same: fields, widths, order and codes stand."""
    assert sign(CLAIMS, KEY) == GOLDEN
    assert [reason.value for reason in tokens._REASONS] == [
        "STATIC",
        "SPLIT",
        "BANDIT",
        "OVERRIDE",
        "FORCED",
        "KILL_SWITCH",
        "FALLBACK",
        "DEFAULT",
    ]


def test_no_flipped_bit_goes_unnoticed() -> None:
    """Each bit of what is said and of the signature is guarded."""
    raw = urlsafe_b64decode(sign(CLAIMS, KEY) + "==")
    for place in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(BadToken):
            verify(urlsafe_b64encode(changed).rstrip(b"=").decode(), {7: KEY, 6: KEY, 8: KEY})


def test_no_changed_character_goes_unnoticed() -> None:
    """A token is written in one way only: other spellings of the same bytes do not open either."""
    token = sign(CLAIMS, KEY)
    for place in range(len(token)):
        for character in "AaZ0_-+/=. \n":
            if character != token[place]:
                with pytest.raises(BadToken):
                    verify(token[:place] + character + token[place + 1 :], {KEY.id: KEY})


@pytest.mark.parametrize("form", ["{} ", " {}", "{}=", "{}==", "{}\n", "{}A", "{}AAAA", "{}{}", "{}\x00"])
def test_nothing_may_stand_beside_a_token(form: str) -> None:
    """Padding, blanks and appended bytes are refused, so that a decision has one name."""
    token = sign(CLAIMS, KEY)
    with pytest.raises(BadToken):
        verify(form.format(token, token), {KEY.id: KEY})


def test_no_cut_token_opens() -> None:
    """From either end, by any number of characters."""
    token = sign(CLAIMS, KEY)
    for size in range(len(token)):
        for part in (token[:size], token[len(token) - size :]):
            with pytest.raises(BadToken):
                verify(part, {KEY.id: KEY})


@given(text=st.text(max_size=200))
def test_no_other_text_opens(text: str) -> None:
    """Whatever is sent, the refusal is one of ours."""
    with pytest.raises(BadToken):
        verify(text, {KEY.id: KEY})


@pytest.mark.parametrize("text", ["\ud800" * 90, "é" * 90, "A" * 90, "A" * 100_000])
def test_odd_texts_do_not_open(text: str) -> None:
    """Half of a surrogate pair, letters beyond ASCII, zeros, and far too much."""
    with pytest.raises(BadToken):
        verify(text, {KEY.id: KEY})


@given(claims=CLAIMED, secret=st.binary(min_size=16, max_size=64).filter(lambda secret: secret != KEY.secret))
def test_no_foreign_token_opens(claims: Claims, secret: bytes) -> None:
    """Who does not have the secret cannot make a token, even under the id of a key that we have."""
    foreign = sign(claims, SigningKey(id=KEY.id, secret=secret))
    with pytest.raises(BadToken, match="was not signed by this gateway"):
        verify(foreign, {KEY.id: KEY})


def test_keys_are_changed_while_old_tokens_still_count() -> None:
    """The token's key id finds its key: old and new tokens open side by side, until the old key is gone."""
    old, new = sign(CLAIMS, KEY), sign(CLAIMS, NEXT)
    both = {key.id: key for key in (NEXT, KEY)}
    assert verify(old, both) == verify(new, both) == CLAIMS
    with pytest.raises(BadToken):
        verify(old, {NEXT.id: NEXT})
    with pytest.raises(BadToken):
        verify(old, {KEY.id: OTHER})


def sealed(body: bytes) -> str:
    """A body that is signed by our key, whatever it says."""
    return urlsafe_b64encode(body + tokens._mac(body, KEY)).rstrip(b"=").decode()


@pytest.mark.parametrize(("place", "value"), [(0, 0), (0, 2), (4, len(Reason)), (4, 255)])
def test_a_token_of_another_version_is_refused(place: int, value: int) -> None:
    """A version or reason that a newer gateway knows is refused, and raises nothing else."""
    body = bytearray(BODY)
    body[place] = value
    with pytest.raises(BadToken):
        verify(sealed(bytes(body)), {KEY.id: KEY})


@pytest.mark.parametrize(
    ("key_id", "secret", "message"),
    [
        (-1, b"k" * 32, r"keys.id must be in \[0, 65535\], got -1"),
        (65_536, b"k" * 32, r"keys.id must be in \[0, 65535\], got 65536"),
        (1, b"", r"keys.secret must be 16 to 64 bytes long, got 0"),
        (1, b"k" * 15, r"keys.secret must be 16 to 64 bytes long, got 15"),
        (1, b"k" * 65, r"keys.secret must be 16 to 64 bytes long, got 65"),
    ],
)
def test_a_key_that_cannot_sign_is_refused(key_id: int, secret: bytes, message: str) -> None:
    """When it is built or read, not when the first request needs it."""
    with pytest.raises(BadSnapshot, match=message):
        SigningKey(id=key_id, secret=secret)
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"id": key_id, "secret": secret}, SigningKey)


def test_a_decision_is_named_by_time_and_nonce() -> None:
    """28 hexadecimal characters that sort by time, and differ within one moment."""
    assert decision_id(CLAIMS) == "019b76daa800fedcba9876543210"
    names = [
        decision_id(msgspec.structs.replace(CLAIMS, at_ms=at_ms, nonce=nonce))
        for at_ms, nonce in [(0, 2**64 - 1), (9, 0), (9, 1), (10, 0), (2**44, 0)]
    ]
    assert names == sorted(set(names))
    assert {len(name) for name in names} == {28}
