"""Claims about pages in browsers: only those of named origins may call, and never an arm through us."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.cors import is_origin
from app.gateway.settings import BadLimit, GatewaySettings
from app.limits import limits_of_file, limits_of_flags
from app.settings import BadSettings
from tests.app.gateway.stage import Message, Stage

SHOP, FOREIGN = "https://shop.example.com", "https://evil.example"
SHARED = [
    "/v1/decide/bid",
    "/v1/outcomes",
    "/v1/exposures",
    "/ofrep/v1/evaluate/flags",
    "/ofrep/v1/evaluate/flags/bid",
]
PRIVATE = ["/healthz", "/readyz", "/metrics"]


@pytest.fixture
def shop(stage: Stage) -> Stage:
    """A gateway that is open to the pages of a shop and of a machine for development."""
    stage.limit(cors_origins=(SHOP, "http://localhost:5173"))
    return stage


async def preflight(stage: Stage, path: str, origin: str = SHOP, method: str = "POST") -> Message:
    """What a browser asks before it sends a request that a form could not."""
    return await stage.ask(
        "OPTIONS",
        path,
        Origin=origin,
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers="content-type",
    )


def shared_with(answer: Message) -> str | None:
    """Pages of which origin may see the answer; there are never any cookies."""
    assert answer["access-control-allow-credentials"] is None
    return answer["access-control-allow-origin"]


@pytest.mark.parametrize("path", SHARED)
async def test_a_page_of_a_named_origin_may_call(shop: Stage, path: str) -> None:
    """The browser is told what it may send and see, and for how long it need not ask again."""
    answer = await preflight(shop, path)
    assert (answer.status, answer.body, answer["content-length"], answer["content-type"]) == (
        204,
        b"",
        None,
        None,
    )
    assert shared_with(answer) == SHOP
    assert answer["access-control-allow-methods"] == "POST"
    assert (
        answer["access-control-allow-headers"] == "content-type, if-none-match, kingmaker-key, authorization"
    )
    assert answer["access-control-max-age"] == "7200"
    assert answer["vary"] == "Origin"


@pytest.mark.parametrize("path", SHARED)
async def test_a_page_sees_what_it_was_answered(shop: Stage, path: str) -> None:
    """Its own origin alone is named, whatever the status; fields that it needs are shown to it."""
    for body in (b'{"context": {}}', b"nonsense"):
        answer = await shop.ask("POST", path, body, Origin=SHOP)
        assert shared_with(answer) == SHOP
        assert answer["access-control-expose-headers"] == "ETag, Retry-After"
        assert answer["vary"] == "Origin"
    assert shared_with(await shop.ask("PUT", path, b"{}", Origin=SHOP)) == SHOP


async def test_an_answer_without_a_body_is_shared_too(shop: Stage) -> None:
    """Without the fields, a browser would take a 304 for an error."""
    body = b'{"context": {"targetingKey": "u1"}}'
    tag = (await shop.ask("POST", "/ofrep/v1/evaluate/flags", body, Origin=SHOP))["etag"]
    assert tag is not None
    polled = await shop.ask("POST", "/ofrep/v1/evaluate/flags", body, Origin=SHOP, If_None_Match=tag)
    assert (polled.status, shared_with(polled), polled["etag"]) == (304, SHOP, tag)


@pytest.mark.parametrize(
    "origin",
    [
        FOREIGN,
        "null",
        "",
        "https://shop.example.com.evil.example",
        "http://shop.example.com",
        "HTTPS://SHOP.EXAMPLE.COM",
    ],
)
@pytest.mark.parametrize("path", SHARED)
async def test_a_page_of_another_origin_may_not(shop: Stage, path: str, origin: str) -> None:
    """Neither a part of a name, nor another scheme, nor none at all will do."""
    asked = await preflight(shop, path, origin)
    assert (asked.status, shared_with(asked), asked["vary"]) == (403, None, "Origin")
    assert asked["access-control-allow-methods"] is None
    answer = await shop.ask("POST", path, b"{}", Origin=origin)
    assert (shared_with(answer), answer["vary"]) == (None, "Origin")


@pytest.mark.parametrize("path", SHARED)
async def test_by_default_no_page_may(stage: Stage, path: str) -> None:
    """And the answers of who is no browser carry nothing about it."""
    asked = await preflight(stage, path)
    assert (asked.status, shared_with(asked), asked["vary"]) == (403, None, None)
    answer = await stage.ask("POST", path, b"{}", Origin=SHOP)
    assert (shared_with(answer), answer["vary"]) == (None, None)
    plain = await stage.ask("OPTIONS", path)
    assert (plain.status, plain["allow"]) == (405, "POST")


async def test_every_origin_can_be_allowed(stage: Stage) -> None:
    """A page that has none included, as one in a sandbox has; who sends none gets no field."""
    stage.limit(cors_origins=("*",))
    for origin in (FOREIGN, "null"):
        assert (await preflight(stage, "/v1/outcomes", origin)).status == 204
        assert shared_with(await stage.ask("POST", "/v1/outcomes", b"{}", Origin=origin)) == origin
    answer = await stage.ask("POST", "/v1/outcomes", b"{}")
    assert (shared_with(answer), answer["vary"]) == (None, "Origin")


@pytest.mark.parametrize("path", PRIVATE)
async def test_what_operators_see_is_shared_with_no_page(shop: Stage, path: str) -> None:
    """Not even with a named origin's."""
    assert shared_with(await shop.ask(path=path, Origin=SHOP)) is None
    asked = await preflight(shop, path, method="GET")
    assert (asked.status, shared_with(asked)) == (405, None)


async def test_an_arm_speaks_for_itself(shop: Stage) -> None:
    """Preflights under a route are the arm's, and nothing is added to what it answers."""
    asked = await preflight(shop, "/r/bid")
    answer = await shop.ask("POST", "/r/bid", b"{}", Origin=SHOP)
    seen = [message.line.split(" ")[0] for message in (*shop.champion.seen, *shop.challenger.seen)]
    assert sorted(seen) == ["OPTIONS", "POST"]
    for told in (asked, answer):
        assert (told.status, shared_with(told), told["vary"]) == (200, None, None)


async def test_a_connection_outlives_a_preflight(shop: Stage) -> None:
    """The page's request comes on it next."""
    reader, writer = await shop.connect()
    head = f"Host: a\r\nOrigin: {SHOP}\r\n".encode()
    writer.write(b"OPTIONS /v1/outcomes HTTP/1.1\r\n" + head + b"Access-Control-Request-Method: POST\r\n\r\n")
    writer.write(b"POST /v1/decide/bid HTTP/1.1\r\n" + head + b"Content-Length: 2\r\n\r\n{}")
    told = (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
    assert told == b"HTTP/1.1 204 No Content"
    assert (await reader.readuntil(b"\r\n\r\n")).splitlines()[0] == b"HTTP/1.1 200 OK"


async def test_an_origin_cannot_bring_fields_of_its_own(shop: Stage) -> None:
    """What is sent as one is shown to nobody but as text in the refusal."""
    raw = f"OPTIONS /v1/outcomes HTTP/1.1\r\nHost: a\r\nOrigin: {SHOP},{FOREIGN}\xff\r\n".encode("latin-1")
    answer = await shop.send(raw + b"Access-Control-Request-Method: POST\r\n\r\n")
    assert (answer.status, shared_with(answer)) == (403, None)
    assert "cors_origins" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("*", True),
        ("https://shop.example.com", True),
        ("http://localhost:5173", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("capacitor://localhost", True),
        ("https://xn--caf-dma.example", True),
        ("", False),
        ("null", False),
        ("shop.example.com", False),
        ("https://shop.example.com/", False),
        ("https://shop.example.com/path", False),
        ("https://Shop.example.com", False),
        ("https://*.example.com", False),
        ("https://shop.example.com:443", False),
        ("http://shop.example.com:80", False),
        ("http://shop.example.com:99999", False),
        ("http://shop.example.com:", False),
        ("https://user@shop.example.com", False),
        ("https://café.example", False),
        ("https://shop.example.com\n", False),
        ("https://a https://b", False),
    ],
)
def test_what_no_browser_sends_is_refused(text: str, wanted: bool) -> None:
    """A setting that could never match is an error of who wrote it."""
    assert is_origin(text) is wanted
    if not wanted:
        with pytest.raises(BadLimit, match="cors_origins must hold origins as browsers send them"):
            GatewaySettings(cors_origins=(text,))


@given(st.text(max_size=40))
def test_an_origin_never_holds_what_ends_a_field(text: str) -> None:
    """Neither white space nor a comma."""
    assert not (is_origin(text) and any(character in text for character in " \t\r\n,"))


def test_origins_are_a_list_or_stand_between_commas() -> None:
    """As networks do; what is none is refused with its place."""
    both = {"cors_origins": (SHOP, FOREIGN)}
    assert limits_of_flags([f"cors_origins={SHOP}, {FOREIGN}"]) == both
    assert limits_of_file({"cors_origins": [SHOP, FOREIGN]}, "k.yaml") == both
    assert limits_of_file({"cors_origins": ""}, "k.yaml") == {"cors_origins": ()}
    with pytest.raises(BadSettings, match=r"^k.yaml: gateway.cors_origins must be a list of origins, got 5$"):
        limits_of_file({"cors_origins": 5}, "k.yaml")
    with pytest.raises(BadSettings, match=r"^--limit cors_origins must hold origins as browsers send them"):
        limits_of_flags(["cors_origins=shop.example.com"])
