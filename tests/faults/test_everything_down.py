"""Claims about the commands of docs/operations.md for when everything but the workers is gone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from app.commands import local_kills
from tests.app.product import Product, Server, environment, eventually, kingmaker, route, until

_PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def _documented(beginning: str) -> list[str]:
    """The words of the one command of the page that begins like this."""
    blocks = re.findall(r"```sh\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    [command] = [block.strip() for block in blocks if block.startswith(beginning)]
    return shlex.split(command)


async def _run(server: Server, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a documented command for this server's folder and route."""
    places = {"kingmaker": kingmaker(), "DIR": str(server.data_dir), "ad-bidder": "bid"}
    return await asyncio.to_thread(
        subprocess.run,
        [places.get(word, word) for word in words],
        env=environment() | {"KINGMAKER_SERVER": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def _down(product: Product) -> Server:
    """A gateway with two workers whose challenger has all traffic, with database and control plane gone."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve("--workers", "2", routes=[route(old, new, share=10_000)])
    async with server.caller() as caller:
        assert await caller.arm_of("ann") == "new"
    for path in server.data_dir.glob("kingmaker.db*"):
        path.rename(product.folder / path.name)
    server.process.send_signal(signal.SIGSTOP)
    return server


async def _reasons(server: Server) -> set[str | None]:
    """Why callers on connections of their own, at any worker, get the arm that they get."""
    found = set()
    for _ in range(12):
        async with server.caller() as caller:
            found.add((await caller.ask(X_User_Id="ann"))["kingmaker-reason"])
    return found


async def _are(server: Server, reason: str) -> None:
    await eventually(lambda: _reasons(server), lambda found: found == {reason})


async def test_the_kill_switch_works_with_everything_down(product: Product) -> None:
    """Every worker obeys, says so in its metrics, and goes on after a kill -9 and when the rest is back; off
    is off."""
    server = await _down(product)
    thrown = await _run(server, _documented("kingmaker kill ad-bidder --local --reason"))
    assert thrown.returncode == 0, thrown.stderr
    assert "workers w0, w1" in thrown.stdout
    await _are(server, "KILL_SWITCH")
    async with server.caller() as caller:
        metrics = (await caller.ask("/metrics")).body.decode()
    assert 'kingmaker_local_kill_switch{route="bid",worker="w' in metrics
    server.process.send_signal(signal.SIGCONT)
    killed = server.workers()[0]
    os.kill(killed, signal.SIGKILL)
    await until(lambda: killed not in server.workers() and len(server.workers()) == 2)
    assert await _reasons(server) == {"KILL_SWITCH"}
    again = await _run(server, _documented("kingmaker kill ad-bidder --local --off"))
    assert again.returncode == 0, again.stderr
    await _are(server, "STATIC")


@pytest.mark.long
async def test_the_control_plane_does_not_undo_a_local_switch(product: Product) -> None:
    """Its own switch goes on and off, and snapshots come and go: the local one holds until it is off."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve(routes=[route(old, new, share=10_000)])
    thrown = await _run(server, _documented("kingmaker kill ad-bidder --local --reason"))
    assert thrown.returncode == 0, thrown.stderr
    await _are(server, "KILL_SWITCH")
    await server.api("PUT", "/routes/bid/kill-switch", {"reason": "there too"})
    await server.api("DELETE", "/routes/bid/kill-switch")
    await server.api("PUT", "/routes/bid/split", {"weights": {"old": 0, "new": 10_000}})
    await asyncio.sleep(1)
    assert await _reasons(server) == {"KILL_SWITCH"}
    again = await _run(server, _documented("kingmaker kill ad-bidder --local --off"))
    assert again.returncode == 0, again.stderr
    await _are(server, "STATIC")


async def test_a_switch_ends_after_the_time_it_was_given(product: Product) -> None:
    """`--for` is kept with it, and nobody has to come back."""
    server = await _down(product)
    words = [*_documented("kingmaker kill ad-bidder --local --reason"), "--for", "3s", "--json"]
    thrown = await _run(server, words)
    said = json.loads(thrown.stdout)
    assert (said["kill_switch"], said["workers"]) == (True, ["w0", "w1"])
    assert [(kill["route"], bool(kill["until"])) for kill in said["local"]] == [("bid", True)]
    await _are(server, "KILL_SWITCH")
    await _are(server, "STATIC")


async def test_orders_that_cannot_be_carried_out_are_refused(product: Product) -> None:
    """Unknown route, missing reason, a duration or a folder that is none: each changes nothing."""
    server = await _down(product)
    throw = _documented("kingmaker kill ad-bidder --local --reason")
    for words, code, problem in (
        (["other" if word == "ad-bidder" else word for word in throw], 1, "route must be one of bid in"),
        ([*throw, "--for", "soon"], 2, "--for must be a number"),
        ([*throw, "--off", "--for", "2h"], 2, "does not go with --off"),
        ([word for word in throw if word != "--local"] + ["--for", "2h"], 2, "--for is for --local alone"),
        (["kingmaker", "kill", "bid", "--local", "--data-dir", "DIR"], 2, "needs a --reason"),
        (
            [*_documented("kingmaker kill ad-bidder --local --off")[:-1], "/nowhere"],
            1,
            "must hold a snapshot",
        ),
    ):
        refused = await _run(server, words)
        assert refused.returncode == code, refused
        assert problem in " ".join(refused.stderr.replace("│", " ").split()), refused.stderr
    assert await _reasons(server) == {"STATIC"}
    assert not (server.data_dir / "kills.json").exists()


async def test_a_gateway_starts_over_a_damaged_snapshot_with_everything_down(product: Product) -> None:
    """From the copy that the workers kept; and the command for the kill switch works from it as well."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve(routes=[route(old, new, share=10_000)])
    kept = server.data_dir / "snapshot.kept.json"
    await until(kept.exists)
    assert (await server.stop()).code == 0
    snapshot = server.data_dir / "snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes()[:100])
    words = [*_documented("kingmaker gateway"), "--gateway-port", "0"]
    places = {"kingmaker": kingmaker(), "DIR": str(server.data_dir)}
    gateway = subprocess.Popen(  # noqa: ASYNC220  # starting a process takes no time
        [places.get(word, word) for word in words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert gateway.stdout is not None
        said = await asyncio.wait_for(asyncio.to_thread(gateway.stdout.readline), 30)
        server.gateway = said.split()[-1]
        async with server.caller() as caller:
            assert await caller.arm_of("ann") == "new"
        thrown = await _run(server, _documented("kingmaker kill ad-bidder --local --reason"))
        assert thrown.returncode == 0, thrown.stderr
        await _are(server, "KILL_SWITCH")
    finally:
        gateway.terminate()
        await asyncio.to_thread(gateway.communicate, None, 30)


def test_only_workers_that_live_are_named(tmp_path: Path) -> None:
    """Figures that were written long ago are those of a worker that has ended."""
    (tmp_path / "spools").mkdir()
    for name in ("w0", "w1"):
        (tmp_path / "spools" / f"{name}.metrics.json").write_text("{}")
    os.utime(tmp_path / "spools" / "w1.metrics.json", (0, 0))
    assert local_kills._workers(tmp_path) == ["w0"]
