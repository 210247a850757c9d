"""Claims about what the gateway says itself, adds or leaves out: dates, OPTIONS, names, hosts, paths."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest

from routing.types import Arm, ArmHeader, Match, Role
from tests.app.gateway.stage import OK, ArmServer, Stage, request

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_an_answer_without_a_date_gets_one(stage: Stage, method: str) -> None:
    """A recipient with a clock adds it (RFC 9110, 6.6.1)."""
    stage.route(0)
    answer = await stage.ask(method)
    (date,) = answer.all("date")
    assert parsedate_to_datetime(date).tzinfo is not None
    assert date.endswith(" GMT")


@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
async def test_the_date_of_an_arm_is_the_date(stage: Stage, name: str) -> None:
    """However its name is written, it is not said twice."""
    stage.route(0)
    head = f"HTTP/1.1 200 OK\r\n{name}: {DATE}\r\nContent-Length: 0\r\n\r\n"
    stage.champion.script = ArmServer.say(head.encode())
    assert (await stage.ask()).all("date") == [DATE]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request(path="/healthz"), 200),
        (request("POST", "/v1/outcomes", b"{"), 422),
        (request("DELETE", "/metrics"), 405),
        (request(path="/nowhere"), 404),
        (request("OPTIONS", Max_Forwards="0"), 200),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_answers_of_our_own_have_one_date(stage: Stage, raw: bytes, status: int) -> None:
    """Endpoints, refusals, and what is no request at all."""
    answer = await stage.send(raw)
    assert answer.status == status
    (date,) = answer.all("date")
    assert parsedate_to_datetime(date).tzinfo is not None


async def test_options_that_go_no_further_are_answered_here(stage: Stage) -> None:
    """At Max-Forwards: 0 the arm is not asked, nothing is decided, and the methods are said."""
    stage.route(0)
    answer = await stage.send(request("OPTIONS", Max_Forwards="0"))
    assert answer.status == 200
    assert {"GET", "POST", "OPTIONS"} <= set((answer["allow"] or "").split(", "))
    assert answer["kingmaker-decision"] is None
    assert (stage.champion.seen, stage.spool.events) == ([], [])


@pytest.mark.parametrize(
    ("method", "sent", "arrives"),
    [
        *(("OPTIONS", "5", "4"), ("OPTIONS", "1", "0"), ("OPTIONS", "many", "many")),
        *(("GET", "5", "5"), ("GET", "0", "0"), ("POST", "0", "0")),
    ],
)
async def test_each_gateway_on_the_way_counts_options(
    stage: Stage, method: str, sent: str, arrives: str
) -> None:
    """RFC 9110, 7.6.2: one less at the arm; what other methods say, and what is no number, is left alone."""
    stage.route(0)
    assert (await stage.ask(method, Max_Forwards=sent)).status == 200
    (seen,) = stage.champion.seen
    assert seen.all("max-forwards") == [arrives]


async def test_options_of_the_gateway_itself_need_no_route(stage: Stage) -> None:
    """`OPTIONS *` is answered with the methods, and counts as nothing that was not found."""
    answer = await stage.send(request("OPTIONS", "*"))
    assert (answer.status, answer.body) == (200, b"")
    assert "OPTIONS" in (answer["allow"] or "").split(", ")
    assert stage.counted("kingmaker_unrouted_requests_total") == 0
    assert (await stage.send(request("GET", "*"))).status == 400


@pytest.mark.parametrize("name", ["X_Model_Key", "x-model_key", "X-MODEL-KEY", "x_model-key"])
@pytest.mark.parametrize("declared", ["X-Model-Key", "X_Model_Key"])
async def test_a_secret_of_an_arm_has_no_double(stage: Stage, declared: str, name: str) -> None:
    """A caller's header that a server might read in its place is dropped, and others like it are not."""
    url = f"http://127.0.0.1:{stage.champion.port}/score"
    headers = (ArmHeader(name=declared, value="secret"),)
    stage.route(0, arms=(Arm(id=1, name="old", url=url, role=Role.CHAMPION, headers=headers),))
    raw = f"GET /r/bid HTTP/1.1\r\nHost: a\r\n{name}: mine\r\nX_Model_Keys: other\r\n\r\n"
    assert (await stage.send(raw.encode())).status == 200
    (seen,) = stage.champion.seen
    values = [value for _, value in seen.fields]
    assert (values.count("secret"), values.count("mine"), values.count("other")) == (1, 0, 1)


@pytest.mark.parametrize("name", ["Kingmaker_X", "kingmaker_arm", "KINGMAKER_Decision", "Kingmaker-X"])
async def test_an_arm_does_not_speak_for_us_in_any_spelling(stage: Stage, name: str) -> None:
    """What some clients read as a header of ours is dropped from its answer."""
    stage.route(0)
    head = f"HTTP/1.1 200 OK\r\n{name}: evil\r\nKingmakers_X: fine\r\nContent-Length: 0\r\n\r\n"
    stage.champion.script = ArmServer.say(head.encode())
    answer = await stage.ask()
    values = [value for _, value in answer.fields]
    assert (values.count("evil"), values.count("fine")) == (0, 1)


@pytest.mark.parametrize("base", ["", "/", "/?key=1"])
@pytest.mark.parametrize("slashes", ["//", "///"])
async def test_no_host_is_made_of_a_path(stage: Stage, base: str, slashes: str) -> None:
    """An arm that is at its server's root never gets a target with two slashes in front."""
    url = f"http://127.0.0.1:{stage.champion.port}{base}"
    stage.route(0, arms=(Arm(id=1, name="old", url=url, role=Role.CHAMPION),))
    assert (await stage.ask(path=f"/r/bid{slashes}evil.test//x")).status == 200
    (seen,) = stage.champion.seen
    assert seen.line.split(" ")[1].partition("?")[0] == "/evil.test//x"


@pytest.mark.parametrize("host", ["api.test.", "API.Test.", "api.test.:8080", "api.test:65535", "api.test"])
async def test_the_dot_at_the_end_of_a_name_means_nothing(stage: Stage, host: str) -> None:
    """A fully qualified name is the same host, with or without a port."""
    stage.route(0, match=Match(host="api.test"))
    stage.champion.script = ArmServer.say(OK)
    raw = f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert (await stage.send(raw)).status == 200


@pytest.mark.parametrize("host", ["a:65536", "a:99999", "[::1]:65536"])
@pytest.mark.parametrize("form", ["GET / HTTP/1.1\r\nHost: {}", "GET http://{}/ HTTP/1.1\r\nHost: b"])
async def test_a_port_that_cannot_be_is_refused(stage: Stage, host: str, form: str) -> None:
    """In the Host field and in a URL as target."""
    answer = await stage.send(f"{form.format(host)}\r\n\r\n".encode())
    assert answer.status == 400
