"""Claims about starting again over what an earlier start has left."""

from __future__ import annotations

import shutil

import pytest

from app.gateway.snapshots import FILE_NAME, read_snapshot
from tests.app.product import Product, Server, answer_of, route


async def _started(product: Product) -> Server:
    old, new = await product.arm("old"), await product.arm("new")
    return await product.serve(routes=[route(old, new)])


@pytest.mark.long
async def test_a_file_does_not_undo_what_a_person_has_moved(product: Product) -> None:
    """The same file at the next start leaves a split that was set through the API, and says so."""
    server = await _started(product)
    await server.api("PUT", "/routes/bid/split", {"weights": {"old": 2_000, "new": 8_000}})
    assert (await server.stop()).code == 0
    again = await product.serve("--config", str(product.folder / "routes.yaml"))
    assert (await again.api("GET", "/routes/bid/rollout"))["weights"] == {"old": 2_000, "new": 8_000}
    assert "bid: split.weights stays" in again.stdout
    assert "--take-over" in again.stdout


async def test_the_snapshot_of_another_database_is_not_served(product: Product) -> None:
    """When the database was thrown away, gateways route by the new one, although both have equal versions."""
    server = await _started(product)
    before = read_snapshot(server.data_dir / FILE_NAME)
    assert (await server.stop()).code == 0
    for path in server.data_dir.glob("kingmaker.db*"):
        path.unlink()
    other = await product.arm("other")
    fresh = await product.serve(routes=[route(other, other)])
    after = read_snapshot(fresh.data_dir / FILE_NAME)
    assert after.version == before.version
    assert after.keys != before.keys
    async with fresh.caller() as caller:
        assert (await caller.ask(X_User_Id="ann")).body in answer_of("other")


@pytest.mark.long
async def test_a_damaged_snapshot_is_written_again(product: Product) -> None:
    """Half a file, or none, is made good at the next start."""
    server = await _started(product)
    assert (await server.stop()).code == 0
    snapshot = server.data_dir / FILE_NAME
    snapshot.write_bytes(snapshot.read_bytes()[:100])
    again = await product.serve()
    async with again.caller() as caller:
        assert (await caller.ask(X_User_Id="ann")).status == 200


@pytest.mark.long
async def test_a_moved_folder_is_a_moved_installation(product: Product) -> None:
    """Routes, keys and figures are all in the data folder: a copy of it goes on elsewhere."""
    server = await _started(product)
    async with server.caller() as caller:
        arm, token = await caller.decide("ann")
    assert (await server.stop()).code == 0
    moved = product.folder / "moved"
    shutil.move(server.data_dir, moved)
    again = await product.serve("--data-dir", str(moved))
    async with again.caller() as caller:
        assert await caller.arm_of("ann") == arm
        told = await caller.report([{"decision": token, "metric": "conversion", "value": 1}])
    assert told.status == 202
