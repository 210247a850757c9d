"""Claims about real servers behind the gateway: each reads the requests that the gateway meant, no others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.attacks.attacked import FOLLOWED, Nonces, expected, filled
from tests.attacks.case import Attack, Clean, Own, Refused, Unfinished
from tests.attacks.framing import FRAMING
from tests.attacks.heads import HEADS
from tests.attacks.origins import SERVERS, Seen, Server, program, server
from tests.faults.scene import CutOff, Wire, get, new_nonce, route, worker
from tests.faults.strict import Whole

ATTACKS = [*FRAMING, *HEADS]
_CALLERS = 8


async def _answers(wire: Wire, attack: Attack) -> list[Whole]:
    """All answers on a connection, up to its end."""
    found: list[Whole] = []
    method = b"HEAD" if attack.raw.startswith(b"HEAD") else b"GET"
    while True:
        try:
            found.append(await wire.answer(method))
        except CutOff as cut:
            if cut.args != (b"",):
                raise
            return found
        method = b"GET"


async def _suffer(port: int, attack: Attack) -> tuple[Nonces, list[Whole]]:
    """Makes an attack with a request behind it, which is the last one."""
    nonces = Nonces(new_nonce(), new_nonce(), new_nonce())
    async with Wire(port) as wire:
        wire.send(filled(attack.raw, nonces) + get(nonces.followed, FOLLOWED, b"Connection: close"))
        if isinstance(attack.wanted, Unfinished):
            wire.finish()
        return nonces, await _answers(wire, attack)


def _assert_agreed(attack: Attack, nonces: Nonces, answers: list[Whole], seen: list[Seen]) -> None:
    """What the server has seen of this attack is what the gateway meant."""
    ours = {nonces.own, nonces.smuggled, nonces.followed}
    got = [request for request in seen if request.nonce in ours]
    wanted = list(expected(attack.wanted, nonces))
    if any(answer.status == 400 and answer[b"kingmaker-arm"] for answer in answers):
        assert nonces.smuggled not in [request.nonce for request in got] or nonces.smuggled in wanted
        return
    assert [request.nonce for request in got] == wanted, attack
    if isinstance(attack.wanted, Clean):
        assert got[0].body == filled(attack.wanted.body, nonces)
    served = [answer for answer in answers if answer.status == 200 and answer[b"kingmaker-arm"]]
    assert [answer[b"x-nonce"] for answer in served] == wanted, attack
    if isinstance(attack.wanted, Refused):
        assert [answer.status for answer in answers] == [attack.wanted.status]
    if isinstance(attack.wanted, Own):
        assert answers[0].status == attack.wanted.status


async def _attack(behind: Server, port: int, attacks: list[Attack]) -> None:
    """All attacks, from several callers at a time, so that connections to the server are shared."""
    queue = list(attacks)
    results: list[tuple[Attack, Nonces, list[Whole]]] = []

    async def call() -> None:
        while queue:
            attack = queue.pop()
            results.append((attack, *await _suffer(port, attack)))

    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(call())
    assert behind.recorder is None or behind.recorder.broken == []
    seen = await behind.seen()
    for attack, nonces, answers in results:
        _assert_agreed(attack, nonces, answers, seen)
    known = {nonce for _, nonces, _ in results for nonce in (nonces.own, nonces.smuggled, nonces.followed)}
    assert {request.nonce for request in seen} <= known


@pytest.mark.parametrize("name", SERVERS)
async def test_a_real_server_reads_the_same_requests(name: str, tmp_path: Path) -> None:
    """Every attack, with a request behind it on the same connection: the server gets what the gateway meant,
    each caller the answers to its own requests, and nobody sees what was smuggled."""
    if program(name) is None:
        pytest.skip(f"{SERVERS[name]} is not installed")
    async with server(name, tmp_path) as behind:
        with worker(tmp_path / "data", [route(behind.port)]) as gateway:
            await _attack(behind, gateway.port, ATTACKS)
            assert gateway.troubles == []
