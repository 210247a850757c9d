"""How attacks are made, and how it is seen what came of them: at the caller, and in the origin's byte log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.attacks.case import NONCE, SMUGGLED, SPOOFED, Attack, Clean, Own, Refused, Unfinished
from tests.faults.origin import Origin
from tests.faults.scene import CutOff, Wire, Worker, get, new_nonce, until
from tests.faults.strict import Whole, read_answer

FOLLOWED = b"/r/bid/followed"


class Delivery(StrEnum):
    """How the bytes arrive."""

    TOGETHER = "together"
    APART = "apart"
    DRIPPED = "dripped"


@dataclass(frozen=True, slots=True)
class Nonces:
    """Which nonce belongs to the attacker's request, to the one it smuggles, and to the one that follows."""

    own: bytes
    smuggled: bytes
    followed: bytes


class Attacked:
    """A worker and the origin behind it, which has seen nothing but what the current attack has brought."""

    def __init__(self, worker: Worker, origin: Origin) -> None:
        self.worker = worker
        self.origin = origin

    async def suffer(self, attack: Attack, delivery: Delivery) -> None:
        """Makes an attack, with a request behind it on the same connection, and asserts what comes of it."""
        nonces = Nonces(new_nonce(), new_nonce(), new_nonce())
        raw = filled(attack.raw, nonces)
        after = get(nonces.followed, FOLLOWED)
        origin, seen = self.origin, len(self.origin.seen)
        async with Wire(self.worker.port) as wire:
            if delivery is Delivery.APART:
                wire.send(raw)
            elif delivery is Delivery.TOGETHER:
                wire.send(raw + after)
            else:
                await wire.drip(raw + after)
            match attack.wanted:
                case Refused(status):
                    await _refused(wire, raw, status)
                case Unfinished():
                    await _unfinished(wire)
                case Own(status, early):
                    answer = await wire.answer()
                    assert answer.status == status
                    if early and answer[b"connection"] == b"close":
                        assert await wire.rest() == b""
                        return
                    wire.send(after if delivery is Delivery.APART else b"")
                    assert (await wire.answer())[b"x-nonce"] == nonces.followed
                case Clean() as clean:
                    await _clean(wire, clean, raw, nonces, after if delivery is Delivery.APART else b"")
        assert origin.nonces(seen) == expected(attack.wanted, nonces)
        assert origin.broken == []
        if isinstance(attack.wanted, Clean):
            as_wanted(origin.seen[seen], attack.wanted, nonces)
        assert all(len(request.all(b"x-nonce")) == 1 for request in origin.seen[seen:])
        assert not any(value == SPOOFED for request in origin.seen[seen:] for _, value in request.fields)
        await self._settled()

    async def _settled(self) -> None:
        """No connection to the origin is left with part of a request on it."""
        origin = self.origin
        await until(lambda: all(link.lost or link.is_between for link in origin.links))
        origin.links = [link for link in origin.links if not link.lost]


def filled(text: bytes, nonces: Nonces) -> bytes:
    """A case's bytes with the nonces of this time."""
    return text.replace(NONCE, nonces.own).replace(SMUGGLED, nonces.smuggled)


def expected(wanted: object, nonces: Nonces) -> Sequence[bytes]:
    """The nonces of the requests that must have reached an origin, in order."""
    match wanted:
        case Clean(twice=twice, last=last, spoilt=spoilt):
            more = [nonces.smuggled] if twice else []
            return [nonces.own, *more] if last or spoilt else [nonces.own, *more, nonces.followed]
        case Own():
            return [nonces.followed]
        case _:
            return []


def as_wanted(request: Whole, clean: Clean, nonces: Nonces) -> None:
    """The request that an arm got is the one it should get."""
    assert request.body == filled(clean.body, nonces)
    assert request.target == clean.target
    assert clean.method in (None, request.method)
    for name, value in clean.has.items():
        assert request.all(name) == [value]
    for name in clean.lacks:
        assert request.all(name) == []


async def _refused(wire: Wire, raw: bytes, status: int) -> None:
    answer = await wire.answer(b"HEAD" if raw.startswith(b"HEAD") else b"GET")
    assert answer.status == status, answer
    assert answer[b"connection"] == b"close"
    assert await wire.rest() == b""


async def _unfinished(wire: Wire) -> None:
    wire.finish()
    left = await wire.rest()
    if left:
        answer = read_answer(left)
        assert answer is not None
        assert (answer.status, answer[b"connection"]) == (400, b"close")


async def _clean(wire: Wire, clean: Clean, raw: bytes, nonces: Nonces, after: bytes) -> None:
    method = b"HEAD" if raw.startswith(b"HEAD") else b"GET"
    answers = [await wire.answer(method)]
    assert (answers[0].status, answers[0][b"x-nonce"]) == (200, nonces.own), answers
    if clean.twice:
        answers.append(await wire.answer())
        assert answers[-1][b"x-nonce"] == nonces.smuggled
    wire.send(after)
    if clean.spoilt:
        assert (await wire.answer()).status == 400
        assert await wire.rest() == b""
        return
    if clean.last:
        assert answers[0][b"connection"] == b"close"
        assert await wire.rest() == b""
        return
    try:
        followed = await wire.answer()
    except CutOff as cut:
        raise AssertionError(f"what followed was not answered: {cut}") from cut
    assert (followed.status, followed[b"x-nonce"]) == (200, nonces.followed)
