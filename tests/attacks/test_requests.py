"""Claims about what callers send: it is refused, or an arm gets exactly one clean request."""

from __future__ import annotations

import pytest

from tests.attacks.attacked import Attacked, Delivery
from tests.attacks.case import Attack
from tests.attacks.framing import FRAMING
from tests.attacks.heads import HEADS
from tests.faults.origin import Reply
from tests.faults.scene import Wire, get, new_nonce, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACKS = [*FRAMING, *HEADS]
assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 150, "no case hides another one"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_is_refused_or_is_one_clean_request(attacked: Attacked, attack: Attack) -> None:
    """In one packet with the next request, in one before it, or byte by byte: the origin reads by the letter
    what it should, and the next request on the connection is answered as itself or not at all."""
    for delivery in Delivery:
        await attacked.suffer(attack, delivery)


@pytest.mark.parametrize("count", [2, 30])
async def test_a_caller_that_says_all_at_once_and_ends_is_answered(attacked: Attacked, count: int) -> None:
    """Requests that were whole before the caller's FIN are answered, each, in order."""
    nonces = [new_nonce() for _ in range(count)]
    async with Wire(attacked.worker.port) as wire:
        wire.send(b"".join(post(n, b"x") if at % 2 else get(n) for at, n in enumerate(nonces)))
        wire.finish()
        for nonce in nonces:
            assert (await wire.answer())[b"x-nonce"] == nonce
        assert await wire.rest() == b""


async def test_nothing_is_tunnelled_before_the_protocol_has_changed(attacked: Attacked) -> None:
    """What a caller says behind its handshake reaches no arm while that has not agreed; a false agreement is
    502, and what was said is not heard."""
    origin, nonce, evil = attacked.origin, new_nonce(), new_nonce()
    false = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
    )
    origin.replies = {nonce: Reply([b"", false], pause=0.1)}
    key, version = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"
    lines = (b"Connection: Upgrade", b"Upgrade: websocket", key, version)
    seen = len(origin.seen)
    async with Wire(attacked.worker.port) as wire:
        wire.send(get(nonce, b"/r/bid", *lines) + get(evil))
        assert (await wire.answer()).status == 502
        assert (await wire.answer())[b"x-nonce"] == evil
    assert origin.nonces(seen) == [nonce, evil]
    [link] = [link for link in origin.links if any(r[b"x-nonce"] == nonce for r in link.requests)]
    assert evil not in bytes(link.received)
    assert link.lost
    assert origin.broken == []
