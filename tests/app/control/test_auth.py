"""Who may do what: by the role of a key, or, while there is none, by being on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvicorn

from app.control.main import listener_problem
from app.listeners import is_loopback
from tests.app.control.stage import Stage, arm, document, faults, staged

READS = [
    ("GET", f"/routes{path}")
    for path in (
        "",
        "/ads",
        *(f"/ads/{of}" for of in ("rollout", "timeline", "evaluations", "champion", "metrics")),
    )
]
ACTIONS = ("start", "promote", "rollback", "approve", "pause", "resume")
WRITES: list[tuple[str, str, object]] = [
    ("PUT", "/routes/ads", document(allow_force=True)),
    ("PUT", "/routes/ads?dry_run=true", document(allow_force=True)),
    ("POST", "/routes/ads/arms", arm("third")),
    ("PATCH", "/routes/ads/arms/new", {"labels": {"a": "b"}}),
    ("DELETE", "/routes/ads/arms/third", None),
    ("PUT", "/routes/ads/split", {"weights": {"old": 10_000}}),
    ("PUT", "/routes/ads/kill-switch", {"reason": "because"}),
    ("DELETE", "/routes/ads/kill-switch", None),
    *(
        ("POST", f"/routes/ads/rollout/{action}", {"reason": "x", "arm": "new"})
        for action in ("start", "promote")
    ),
    *(("POST", f"/routes/ads/rollout/{action}", {"reason": "because"}) for action in ACTIONS[2:]),
    ("DELETE", "/routes/ads", None),
]
KEYS: list[tuple[str, str, object]] = [
    ("GET", "/keys", None),
    ("POST", "/keys", {"name": "fresh", "role": "viewer"}),
    ("DELETE", "/keys/99", None),
]


async def test_a_viewer_reads_and_nothing_else(ads: Stage) -> None:
    """Every read is answered; every change is 403 and changes nothing."""
    await ads.make_key("admin")
    key = await ads.make_key("viewer")
    before = await ads.state()
    for method, path in READS:
        assert (await ads.ask(method, path, key=key)).status_code == 200, path
    for method, path, body in (*WRITES, *KEYS):
        answer = await ads.ask(method, path, body, key)
        assert answer.status_code == 403, (method, path)
        assert "got viewer" in answer.json()["detail"]
    assert await ads.state() == before


async def test_an_operator_moves_traffic_but_makes_no_keys(ads: Stage) -> None:
    """No change of a route is refused for the role; keys are."""
    await ads.make_key("admin")
    key = await ads.make_key("operator")
    for method, path, body in (*((*read, None) for read in READS), *WRITES):
        assert (await ads.ask(method, path, body, key)).status_code not in (401, 403), (method, path)
    for method, path, body in KEYS:
        answer = await ads.ask(method, path, body, key)
        assert (answer.status_code, faults(answer)) == (403, {}), (method, path)


async def test_an_admin_does_everything(ads: Stage) -> None:
    """Keys included."""
    key = await ads.make_key("admin")
    for method, path, body in (*((*read, None) for read in READS), *WRITES, *KEYS):
        assert (await ads.ask(method, path, body, key)).status_code not in (401, 403), (method, path)


async def test_an_ingest_key_opens_nothing_here(ads: Stage) -> None:
    """It is for the data plane: not even a read."""
    await ads.make_key("admin")
    key = await ads.make_key("ingest")
    before = await ads.state()
    for method, path, body in (*((*read, None) for read in READS), *WRITES, *KEYS):
        assert (await ads.ask(method, path, body, key)).status_code == 403, (method, path)
    assert (await ads.http.get("/metrics", headers={"Authorization": f"Bearer {key}"})).status_code == 403
    assert await ads.state() == before


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer ", "Bearer wrong", "Basic a2V5", "bearer km_\xe9", "Bearer " + "x" * 5_000],
)
async def test_without_a_valid_key_nobody_gets_in_once_there_is_one(
    ads: Stage, authorization: str | None
) -> None:
    """401 with a challenge, on loopback too; nothing is read and nothing changes."""
    await ads.make_key("admin")
    before = await ads.state()
    headers = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    for method, path, body in (*((*read, None) for read in READS), *WRITES, *KEYS):
        answer = await ads.http.request(method, f"/v1{path}", json=body, headers=headers)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert faults(answer) == {}
    assert (await ads.http.get("/metrics", headers=headers)).status_code == 401
    assert await ads.state() == before


async def test_health_needs_no_key(ads: Stage) -> None:
    """Probes carry none; they are told nothing about routes."""
    await ads.make_key("admin")
    assert (await ads.http.get("/healthz")).json() == {"status": "ok"}
    assert (await ads.http.get("/readyz")).json() == {"status": "ok", "snapshot": ads.snapshot().version}


async def test_off_loopback_there_is_no_way_in_without_a_key(tmp_path: Path, tables: bytes) -> None:
    """Even when the last key was deleted while the server ran: 401, and how to make one."""
    async with staged(tmp_path, tables, keyless=False) as stage:
        answer = await stage.put()
        assert answer.status_code == 401
        assert "kingmaker keys create --role admin" in answer.json()["detail"]
        assert stage.snapshot().routes == ()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8081", "localhost:9", "LOCALHOST", "[::1]:8081", "127.8.8.8"]
)
async def test_without_a_key_this_machine_is_let_in(ads: Stage, host: str) -> None:
    """Under any of its loopback names."""
    assert (await ads.http.get("/v1/routes", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8081",
        "my_evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:99999",
        "127.0.0.1@evil.example",
        "127.0.0.1, evil.example",
        "[::1",
        "192.168.0.7",
        "10.1.2.3",
        "",
    ],
)
async def test_a_web_page_under_a_name_that_leads_here_is_not(ads: Stage, host: str) -> None:
    """DNS rebinding: whatever is not a loopback name is 403 without a key, and nothing changes."""
    before = await ads.state()
    for method, path, body in (("GET", "/v1/routes", None), ("PUT", "/v1/routes/ads/kill-switch", {})):
        answer = await ads.http.request(method, path, json=body, headers={"Host": host})
        assert answer.status_code == 403
        assert f"got {host!r}" in answer.json()["detail"]
    assert await ads.state() == before


async def test_with_a_key_any_host_will_do(ads: Stage) -> None:
    """A proxy in front may pass its own name on."""
    key = await ads.make_key("admin")
    headers = {"Host": "kingmaker.example.com", "Authorization": f"Bearer {key}"}
    assert (await ads.http.get("/v1/routes", headers=headers)).status_code == 200


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_on_a_web_page_moves_no_traffic(ads: Stage, content_type: str | None) -> None:
    """What browsers send to other sites without asking is not read as JSON: 422, and nothing changes."""
    before = await ads.state()
    headers = {"Origin": "http://evil.example"} | (
        {} if content_type is None else {"Content-Type": content_type}
    )
    for action in ACTIONS:
        answer = await ads.http.post(
            f"/v1/routes/ads/rollout/{action}", content=b'{"reason": "x", "arm": "new"}', headers=headers
        )
        assert answer.status_code == 422
    preflight = await ads.http.options("/v1/routes/ads/split", headers={"Origin": "http://evil.example"})
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers
    assert await ads.state() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_it_starts_without_a_key(host: str) -> None:
    """Only this machine can reach it."""
    assert is_loopback(host)
    assert listener_problem(host, has_keys=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.com", ""])  # noqa: S104 # refused
def test_elsewhere_it_wants_a_key_first(host: str) -> None:
    """It refuses to start, and says how to make the first one; with a key it may."""
    problem = listener_problem(host, has_keys=False)
    assert problem is not None
    assert f"got {host}" in problem
    assert "kingmaker keys create --role admin" in problem
    assert listener_problem(host, has_keys=True) is None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _served(stage: Stage) -> AsyncIterator[int]:
    server = _Server(uvicorn.Config(stage.app, port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:  # noqa: ASYNC110 # uvicorn has no event for it
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def _raw(port: int, head: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n")[0]


async def test_over_a_socket_the_same_holds(ads: Stage) -> None:
    """Two Host headers, none, or a foreign one get nowhere; the loopback one does."""
    async with _served(ads) as port:
        get = "GET /v1/routes HTTP/1.1\nConnection: close"
        assert await _raw(port, f"{get}\nHost: 127.0.0.1:{port}") == b"HTTP/1.1 200 OK"
        assert b" 403 " in await _raw(port, f"{get}\nHost: evil.example")
        assert b" 200 " not in await _raw(port, f"{get}\nHost: evil.example\nHost: 127.0.0.1")
        assert b" 403 " in await _raw(port, "GET /v1/routes HTTP/1.0")
