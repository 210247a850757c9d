"""Every error is a problem document that says what to do, and tells nothing that is not the caller's."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from app.control.errors import STATUSES
from app.control.main import create_app
from app.db import errors as database_errors
from app.db.session import Database
from app.gateway.snapshots import FILE_NAME
from policies import errors as policy_errors
from routing.errors import BadWeights
from tests.app.control.stage import LOOPBACK, Stage, document, faults

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v2/routes", 404),
        ("POST", "/v1/routes", 405),
        ("DELETE", "/v1/keys", 405),
        ("TRACE", "/v1/routes", 405),
    ],
)
async def test_what_is_not_there_is_a_problem_too(stage: Stage, method: str, path: str, status: int) -> None:
    """Unknown paths and methods name what was asked."""
    answer = await stage.http.request(method, path)
    assert answer.status_code == status
    assert faults(answer) == {}
    assert f"{method} {path}" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"route: ads",
        b'{"route": "ads",}',
        b"\xff\xfe{}",
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b"{}" * 2,
    ],
)
async def test_a_body_that_is_not_json_is_refused(ads: Stage, body: bytes) -> None:
    """400, or 422 where it is missing; nothing changes."""
    before = await ads.state()
    answer = await ads.http.put("/v1/routes/ads", content=body, headers=JSON)
    assert answer.status_code == (400 if body else 422)
    faults(answer)
    assert await ads.state() == before


@pytest.mark.parametrize(
    "body", [b"null", b"1", b'"text"', b"[]", b"[{}]", b"true", b"NaN", b"{}", b'{"\\ud800": 1}']
)
async def test_a_body_that_is_no_route_is_refused_by_field(ads: Stage, body: bytes) -> None:
    """422 with at least one field."""
    before = await ads.state()
    answer = await ads.http.put("/v1/routes/ads", content=body, headers=JSON)
    assert answer.status_code == 422
    assert faults(answer)
    assert await ads.state() == before


@pytest.mark.parametrize(
    "value", ["x" * 5_000, "é\n\t\x00", "\U0001f451", "<script>", "'; DROP TABLE routes; --"]
)
async def test_values_are_quoted_and_cut_in_messages(ads: Stage, value: str) -> None:
    """Whatever was sent, the answer is a short problem document, and the database is as it was."""
    before = await ads.state()
    answer = await ads.put(document(allow_force=value))
    assert answer.status_code == 422
    message = faults(answer)["allow_force"]
    assert repr(value)[:50] in message
    assert len(message) < 250
    named = await ads.ask("GET", "/routes/ads/evaluations", challenger=value)
    assert named.json() == {"evaluations": [], "next": None}
    assert await ads.state() == before


def test_every_refusal_of_the_core_has_a_status() -> None:
    """Errors that a caller can cause are in the one table; one that is not would be our fault, a 500."""
    by_callers = {
        policy_errors.BadSpec,
        policy_errors.CannotJudge,
        policy_errors.IllegalTransition,
        database_errors.Conflict,
        database_errors.NotFound,
        database_errors.DatabaseUnavailable,
        BadWeights,
    }
    assert by_callers <= STATUSES.keys()
    assert all(
        400 <= status < 500 or status is HTTPStatus.SERVICE_UNAVAILABLE for status in STATUSES.values()
    )


async def test_a_database_that_is_away_is_said_so_and_no_more(stage: Stage, tmp_path: Path) -> None:
    """503 with Retry-After on every operation; neither address nor statement is told."""
    lost = Stage(tmp_path, Database(f"sqlite:///{tmp_path / 'no-folder' / 'kingmaker.db'}"))
    for method, path, body in (
        ("GET", "/v1/routes", None),
        ("PUT", "/v1/routes/ads", document()),
        ("PUT", "/v1/routes/ads/kill-switch", {}),
        ("GET", "/readyz", None),
        ("GET", "/metrics", None),
    ):
        answer = await lost.http.request(method, path, json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), path
        assert faults(answer) == {}
        assert answer.json()["detail"] == "the database cannot be reached now"
    assert (await lost.http.get("/healthz")).status_code == 200
    await lost.http.aclose()
    await lost.database.close()


async def test_a_fault_of_ours_is_logged_and_not_told(ads: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """500 as a problem document without the exception; the log has it."""

    def broken() -> None:
        raise RuntimeError("secret detail")

    app = create_app(ads.context)
    app.add_api_route("/broken", broken)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=LOOPBACK) as http:
        answer = await http.get("/broken")
    assert answer.status_code == 500
    assert faults(answer) == {}
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


async def test_a_change_stands_although_the_file_cannot_be_written(
    ads: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit is what counts: 200, an error in the log, and the next publication brings it to gateways."""
    path = ads.folder / FILE_NAME
    path.unlink()
    path.mkdir()
    (path / "occupied").touch()
    answer = await ads.post("promote")
    assert answer.status_code == 200
    assert "snapshot_not_published" in caplog.text
    (path / "occupied").unlink()
    path.rmdir()
    await ads.context.publish()
    assert ads.published().champion.name == "new"
