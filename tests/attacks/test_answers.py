"""Claims about what arms send: garbage becomes 502 or a cut, never a clean end, and its connection ends."""

from __future__ import annotations

import pytest

from tests.attacks.answers import ANSWERS, SECOND, Aborted, Failed, Garbage, Passed
from tests.attacks.attacked import Attacked
from tests.faults.origin import Link, Origin, Reply, Then
from tests.faults.scene import CutOff, Wire, get, new_nonce, post, until
from tests.faults.strict import Whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
assert len({garbage.name for garbage in ANSWERS}) == len(ANSWERS) >= 60, "no case hides another one"

_PAUSE = 0.03


async def _ask(wire: Wire, garbage: Garbage, nonce: bytes) -> Whole | None:
    """The answer that a caller gets; None when it is cut off."""
    path = b"/r/hurried" if garbage.hurried else b"/r/bid"
    raw = post(nonce, b"x", path) if garbage.method == b"POST" else get(nonce, path)
    wire.send(raw if garbage.method == b"POST" else garbage.method + raw.removeprefix(b"GET"))
    try:
        return await wire.answer(garbage.method)
    except CutOff:
        return None


async def _followed(attacked: Attacked, wire: Wire, nonce: bytes) -> None:
    """The next request, of the same caller if its connection is still there, gets its own answer."""
    if wire.has_ended:
        async with Wire(attacked.worker.port) as other:
            await _followed(attacked, other, nonce)
        return
    wire.send(get(nonce))
    answer = await wire.answer()
    assert (answer.status, answer[b"x-nonce"], answer[b"x-evil"]) == (200, nonce, b"")


def _assert_passed(answer: Whole | None, wanted: Passed) -> None:
    assert answer is not None
    assert (answer.status, answer.body) == (wanted.status, wanted.body)
    assert answer.all(b"kingmaker-arm") == [b"old"]
    for name, value in wanted.has.items():
        assert answer.all(name) == [value]
    for name in wanted.lacks:
        assert answer.all(name) == []


async def _suffer(attacked: Attacked, garbage: Garbage, reply: Reply) -> None:
    origin, nonce, followed = attacked.origin, new_nonce(), new_nonce()
    origin.replies = {nonce: reply}
    seen = len(origin.seen)
    async with Wire(attacked.worker.port) as wire:
        answer = await _ask(wire, garbage, nonce)
        match garbage.wanted:
            case Failed(status):
                assert answer is not None
                assert answer.status == status
                assert answer[b"content-type"] == b"application/problem+json" or garbage.method == b"HEAD"
                assert answer.all(b"kingmaker-arm") == answer.all(b"x-evil") == []
            case Aborted():
                assert answer is None
            case Passed() as wanted:
                _assert_passed(answer, wanted)
        await _followed(attacked, wire, followed)
    used = [link for link in origin.links if any(r[b"x-nonce"] == nonce for r in link.requests)]
    reused = any(request[b"x-nonce"] == followed for link in used for request in link.requests)
    assert reused is (isinstance(garbage.wanted, Passed) and garbage.wanted.reused)
    if not reused:
        await until(lambda: all(link.lost for link in used))
    assert set(origin.nonces(seen)) == {nonce, followed}
    assert origin.broken == []


@pytest.mark.parametrize("garbage", ANSWERS, ids=lambda garbage: garbage.name)
async def test_garbage_never_ends_cleanly(attacked: Attacked, garbage: Garbage) -> None:
    """Its caller gets 502 (504 when it stalls) or a cut, the next request its own answer on a connection of
    its own; what only looks like garbage passes."""
    pause = _PAUSE if len(garbage.pieces) > 1 else 0.0
    await _suffer(attacked, garbage, Reply(garbage.pieces, garbage.then, pause))


@pytest.mark.parametrize(
    "garbage",
    [garbage for garbage in ANSWERS if isinstance(garbage.wanted, Failed) and not garbage.hurried],
    ids=lambda garbage: garbage.name,
)
async def test_garbage_in_slices_never_ends_cleanly(attacked: Attacked, garbage: Garbage) -> None:
    """However its head is cut into packets."""
    [*heads, last] = garbage.pieces or (b"",)
    end = last.find(b"\r\n\r\n") if b"\r\n\r\n" in last else len(last)
    cuts = sorted({1, end // 3, end // 2, end - 1, end} - {0, -1})
    slices = [last[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(last)], strict=True)]
    await _suffer(attacked, garbage, Reply([*heads, *filter(None, slices)], garbage.then, 0.002))


@pytest.mark.parametrize("extra", [SECOND, b"\r\n", b"!", b"\x00"], ids=["answer", "line end", "byte", "NUL"])
async def test_what_an_arm_says_unasked_is_nobodys_answer(attacked: Attacked, extra: bytes) -> None:
    """Bytes that come while no request is under way end the connection; the next request gets another one."""
    origin, nonce, followed = attacked.origin, new_nonce(), new_nonce()
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    origin.replies = {nonce: Reply([first, extra], Then.KEEP, 0.05)}
    async with Wire(attacked.worker.port) as wire:
        wire.send(get(nonce))
        assert (await wire.answer()).body == b"ok"
        link = _link_of(origin, nonce)
        await until(lambda: link.lost)
        await _followed(attacked, wire, followed)
    assert _link_of(origin, followed) is not link


def _link_of(origin: Origin, nonce: bytes) -> Link:
    return next(link for link in origin.links if any(r[b"x-nonce"] == nonce for r in link.requests))
