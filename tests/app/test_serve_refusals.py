"""Claims about an installation that must not start: one line says what is wrong, and nothing changes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from typing import Any

import httpx
import pytest

from tests.app.product import Product, Server, environment, kingmaker, route


def _bad(**changes: Any) -> dict[str, Any]:
    """A route that differs from a good one in these fields."""
    good: dict[str, Any] = {
        "route": "other",
        "arms": [
            {"name": "old", "url": "http://127.0.0.1:1/", "role": "champion"},
            {"name": "new", "url": "http://127.0.0.1:2/"},
        ],
        "split": {"weights": {"old": 9_000, "new": 1_000}},
    }
    return good | changes


_TWO_CHAMPIONS = [{"name": name, "url": "http://127.0.0.1:1/", "role": "champion"} for name in ("old", "new")]
_BAD_FILES = [
    ("route: [", r"routes\.yaml is not YAML: line 1, column \d+"),
    (_bad(colour="red"), r"route 'other': colour is not a known field"),
    (
        _bad(split={"weights": {"old": 9_000, "new": 999}}),
        r"split\.weights .*weights must sum to 10000, got 9999",
    ),
    (_bad(arms=_TWO_CHAMPIONS), r"exactly one champion.*got"),
]


def _assert_said(stderr: str, pattern: str) -> None:
    """One line says it, and nothing is a trace."""
    said = [line for line in stderr.splitlines() if line.startswith("kingmaker: ")]
    assert len(said) == 1, stderr
    assert re.search(pattern, said[0]), said[0]
    assert "Traceback" not in stderr


async def _started(product: Product) -> Server:
    return await product.serve(routes=[route(await product.arm("old"), await product.arm("new"))])


async def test_bad_files_name_field_bound_and_value_and_change_nothing(product: Product) -> None:
    """Each is refused with exit code 1, whatever good route stands before it in the file; the database stays
    as it was, and afterwards the server starts as if nothing had been."""
    server = await _started(product)
    before = await server.api("GET", "/routes")
    assert (await server.stop()).code == 0
    for content, pattern in _BAD_FILES:
        if isinstance(content, dict):
            content = {"routes": [_bad(route="good"), content]}
        end = await product.refusal("--config", str(product.write(content)))
        assert (end.code, end.stdout) == (1, "")
        _assert_said(end.stderr, pattern)
    again = await product.serve()
    assert await again.api("GET", "/routes") == before


async def test_a_file_that_is_not_there_is_named(product: Product) -> None:
    """A configuration that cannot be read is refused with its path and the reason."""
    end = await product.refusal("--config", "nowhere.yaml")
    assert end.code == 1
    _assert_said(end.stderr, r"config nowhere\.yaml cannot be read: .*No such file")


async def test_a_second_start_on_the_same_folder_is_refused(product: Product) -> None:
    """The message names the process that has it; that one goes on."""
    server = await _started(product)
    end = await product.refusal()
    assert end.code == 1
    _assert_said(end.stderr, rf"in use by another gateway \(process {server.process.pid}\)")
    async with server.caller() as caller:
        assert (await caller.ask(X_User_Id="ann")).status == 200


@pytest.mark.long
async def test_a_port_in_use_is_named(product: Product) -> None:
    """It waits a moment for the port, then gives up with exit code 1, and stops what it had started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        end = await product.refusal("--gateway-port", str(port))
    assert end.code == 1
    _assert_said(end.stderr, rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use")


async def test_a_data_folder_that_cannot_be_is_named(product: Product) -> None:
    """A folder below a file cannot be made: exit code 1, with the folder's name."""
    (product.folder / "file").write_text("")
    end = await product.refusal("--data-dir", str(product.folder / "file" / "data"))
    assert end.code == 1
    _assert_said(end.stderr, r"data_dir must be a folder that can be written, got .*file/data")


async def test_a_file_that_is_no_database_is_named(product: Product) -> None:
    """What stands in the place of the database and is none is left alone."""
    (product.folder / "data").mkdir()
    path = product.folder / "data" / "kingmaker.db"
    path.write_bytes(b"a letter to grandmother " * 400)
    end = await product.refusal()
    assert end.code == 1
    _assert_said(end.stderr, r"file is not a database")
    assert path.read_bytes().startswith(b"a letter to grandmother")


@pytest.mark.parametrize("file", ["gateway.lock", "snapshot.json"])
async def test_a_file_that_cannot_be_written_is_named(product: Product, file: str) -> None:
    """What stands in the way of the lock or of the snapshot ends the start with its name."""
    (product.folder / "data" / file).mkdir(parents=True)
    end = await product.refusal()
    assert end.code == 1
    _assert_said(end.stderr, rf"Is a directory: .*{file}")


async def test_a_worker_that_cannot_start_ends_the_whole(product: Product) -> None:
    """A spool that cannot be opened is said by the worker, and the start is given up."""
    (product.folder / "data" / "spools" / "w0.db").mkdir(parents=True)
    end = await product.refusal()
    assert end.code == 1
    _assert_said(end.stderr, r"gateway worker w0 did not get ready: cannot open spool .*w0\.db")


async def test_strangers_need_a_key(product: Product) -> None:
    """Beyond loopback it starts only once a key exists, says how to make one, and lets nobody in without."""
    end = await product.refusal("--host", "0.0.0.0")  # noqa: S104  # that it may not is the claim
    assert end.code == 1
    _assert_said(end.stderr, r"got 0\.0\.0\.0: make the first key with `kingmaker keys create --role admin")
    command = [kingmaker(), "keys", "create", "--role", "admin", "--name", "me", "--json"]
    made = await asyncio.to_thread(
        subprocess.run,
        [*command, "--data-dir", str(product.folder / "data")],
        env=environment(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    server = await product.serve("--host", "0.0.0.0")  # noqa: S104
    assert "no API key is configured" not in server.stdout
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{server.control}/v1/routes")).status_code == 401
    assert await server.api("GET", "/routes", key=json.loads(made.stdout)["key"]) == {"routes": []}


async def test_no_arm_may_be_where_we_listen_ourselves(product: Product) -> None:
    """Neither the control plane nor the gateway can be registered as an arm: 422 by field and value."""
    server = await _started(product)
    async with httpx.AsyncClient(base_url=server.control, trust_env=False) as client:
        for url in (server.control, server.gateway):
            answer = await client.post("/v1/routes/bid/arms", json={"name": "x", "url": f"{url}/v1/keys"})
            host, _, port = url.removeprefix("http://").rpartition(":")
            assert answer.status_code == 422
            assert f"must not be where Kingmaker itself listens, got {host} port {port}" in answer.text


async def test_no_arm_is_called_where_the_control_plane_has_come_to_be(product: Product) -> None:
    """An arm that was somebody else's when it was registered is out of reach once the control plane listens
    there: the gateway hands nothing on to it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arms = _bad()["arms"]
        for arm in arms:
            arm["url"] = f"http://127.0.0.1:{port}/v1/routes"
        server = await product.serve(routes=[_bad(arms=arms)])
        assert (await server.stop()).code == 0
    server = await product.serve("--control-port", str(port))
    assert server.control == f"http://127.0.0.1:{port}"
    async with server.caller() as caller:
        answer = await caller.ask("/r/other")
    assert (answer.status, b"the arm cannot be reached" in answer.body) == (503, True)
