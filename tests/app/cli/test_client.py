"""What a person reads when the control plane cannot be asked, or is something else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.client import ControlPlane, ControlPlaneError
from tests.app.cli.programs import Server, Session, invoke


@contextmanager
def answering(
    status: int, body: str, content_type: str = "application/json"
) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server with one answer to everything; gives its URL and the request lines it has read."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.requestline)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    """Exit code 1; stderr says where was looked, and which command or flag helps."""
    server = f"http://127.0.0.1:{unused_port()}"
    ran = invoke("get", "routes", "--server", server, "--json")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert f"cannot reach {server}" in ran.stderr
    assert "kingmaker serve" in ran.stderr
    assert "--server" in ran.stderr


@pytest.mark.parametrize(
    "server", ["127.0.0.1:8081", "ftp://host", "http://", "http://host:port", "http://[x"]
)
def test_a_server_must_be_a_url(server: str) -> None:
    """What cannot be one is refused before anything is sent."""
    ran = invoke("get", "routes", env={"KINGMAKER_SERVER": server})
    assert ran.exit_code == 1
    assert "server must be a URL" in ran.stderr
    assert repr(server) in ran.stderr


def test_a_key_that_cannot_be_sent_is_refused_without_being_shown() -> None:
    """A key with a line break or other letters never reaches a header, nor the screen."""
    ran = invoke("get", "routes", "--key", "sécret\nX: y")
    assert ran.exit_code == 1
    assert "key must be printable ASCII" in ran.stderr
    assert "cret" not in ran.stderr


def test_the_gateway_is_not_taken_for_the_control_plane(server: Server) -> None:
    """Whoever mixes up the two ports is told so."""
    ran = invoke("get", "routes", "--server", server.gateway)
    assert ran.exit_code == 1
    assert "control plane's address" in ran.stderr


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (502, "bad gateway"), (500, "[]")])
def test_another_server_is_not_taken_for_the_control_plane(status: int, body: str) -> None:
    """An answer that is neither JSON nor a problem document comes from somebody else."""
    with answering(status, body) as (url, _), ControlPlane(url) as control:
        with pytest.raises(ControlPlaneError, match=f"answered {status} to GET /v1/routes") as raised:
            control.get("routes")
        assert raised.value.status == status


def test_a_problem_is_read_out_field_by_field() -> None:
    """Each field at fault has a line, unless the summary names it already."""
    problem = {
        "title": "Unprocessable",
        "detail": "two faults; split must be, got 1",
        "errors": [
            {"field": "split", "message": "must be, got 1"},
            {"field": "arms", "message": "must be, got 2"},
        ],
    }
    body = json.dumps(problem)
    with (
        answering(422, body, "application/problem+json") as (url, _),
        ControlPlane(url) as control,
        pytest.raises(ControlPlaneError) as raised,
    ):
        control.get("routes", "a")
    assert str(raised.value) == "two faults; split must be, got 1\n  arms must be, got 2"


def test_names_cannot_reach_other_paths() -> None:
    """Slashes and question marks in a name stay part of the name; what is None is not asked for."""
    with answering(200, "{}") as (url, seen), ControlPlane(url + "/prefix/") as control:
        control.get("routes", "a/b?c=d", "timeline", limit=5, before=None)
    assert seen == ["GET /prefix/v1/routes/a%2Fb%3Fc%3Dd/timeline?limit=5 HTTP/1.1"]


def test_a_refusal_reads_as_one_line(kingmaker: Session) -> None:
    """What the control plane says is what a person reads, behind the program's name."""
    assert (
        kingmaker.refused("get", "rollout", "nobody", "--json") == "kingmaker: no route is named 'nobody'\n"
    )
