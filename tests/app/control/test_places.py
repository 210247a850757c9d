"""An arm that no gateway would call is refused when it is registered, with its field and its address."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.control.documents import BadDeclaration, parse_route
from app.control.places import Places
from app.gateway.settings import GatewaySettings
from tests.app.control.stage import Stage, arm, document, faults, staged

DENYING = GatewaySettings(deny_networks=("10.0.0.0/8", "127.0.0.9/32"))
LOCAL_ONLY = GatewaySettings(allow_networks=("127.0.0.0/8",))
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  # nobody listens there
PUBLIC_ONLY = GatewaySettings(private_arms=False)
REFUSED: list[tuple[GatewaySettings, str, str]] = [
    (DENYING, "http://10.1.2.3/score", "must not be in deny_networks, got 10.1.2.3"),
    (DENYING, "https://[::ffff:10.1.2.3]/score", "must not be in deny_networks, got ::ffff:"),
    (LOCAL_ONLY, "http://192.0.2.1/", "must be in one of allow_networks, got 192.0.2.1"),
    (LOCAL_ONLY, "http+unix://%2Frun%2Fmodel.sock/", "must be in one of allow_networks, got the Unix socket"),
    (PUBLIC_ONLY, "http://127.0.0.1:9001/", "while private_arms is off, got 127.0.0.1"),
    (PUBLIC_ONLY, "http+unix://%2Frun%2Fmodel.sock/", "must not be a Unix socket while private_arms is off"),
    (PUBLIC_ONLY, "http://localhost:9001/", "must have an address that may be called, got 'localhost': "),
    (GatewaySettings(), "http://169.254.169.254/", "must not be a link-local or metadata address"),
]
TAKEN: list[tuple[GatewaySettings, str]] = [
    (DENYING, "http://127.0.0.1/"),
    (DENYING, "http://localhost/"),
    (LOCAL_ONLY, "http://127.9.9.9/"),
    (PUBLIC_ONLY, "http://192.0.2.1/"),
    (PUBLIC_ONLY, "http://no-such-host.invalid/"),
    (PUBLIC_ONLY, "http://[::1"),
    (PUBLIC_ONLY, ""),
]


@pytest.mark.parametrize(("gateway", "url", "message"), REFUSED)
async def test_an_arm_where_none_may_be_is_refused(gateway: GatewaySettings, url: str, message: str) -> None:
    """By the networks that the gateway's settings name; a name by all that it comes to."""
    with pytest.raises(BadDeclaration) as refused:
        await Places.of(gateway).require_arm("new", url)
    (error,) = refused.value.errors
    assert error.field == "url"
    assert message in error.message


@pytest.mark.parametrize(("gateway", "url"), TAKEN)
async def test_any_other_arm_is_let_through(gateway: GatewaySettings, url: str) -> None:
    """Also a name that nobody knows yet, and what is no URL, which others refuse."""
    await Places.of(gateway).require_arm("new", url)


@pytest.mark.parametrize(
    ("own", "url"),
    [
        (("127.0.0.1", 8081), "http://127.0.0.1:8081/"),
        (("127.0.0.1", 80), "http://127.0.0.1/"),
        (("127.0.0.1", 443), "https://[::ffff:127.0.0.1]/score"),
        (("::1", 8081), "http://[::1]:8081/"),
        ((EVERY_ADDRESS, 8081), "http://127.0.0.9:8081/"),
        (("::", 8081), "http://127.0.0.1:8081/"),
        (("127.0.0.1", 8081), "http://localhost:8081/"),
    ],
)
async def test_an_arm_where_we_listen_ourselves_is_refused(own: tuple[str, int], url: str) -> None:
    """Also where that is every address of this machine, a port that goes without saying, or a name."""
    places = Places.of(GatewaySettings(), frozenset({own, ("192.0.2.1", 9)}))
    with pytest.raises(BadDeclaration) as refused:
        await places.require_arm("new", url)
    (error,) = refused.value.errors
    assert error.field == "url"
    assert re.search(rf"must not be where Kingmaker itself listens, got .* port {own[1]}$", error.message)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8082/", "http://127.0.0.2:8081/", "http://[::1]:9/", "http://192.0.2.1:9/"]
)
async def test_an_arm_beside_where_we_listen_is_let_through(url: str) -> None:
    """Another port or another address is somebody else's; so is a machine that is not this one."""
    own = frozenset({("127.0.0.1", 8081), (EVERY_ADDRESS, 9)})
    await Places.of(GatewaySettings(), own).require_arm("new", url)


async def test_every_arm_of_a_route_that_is_wrong_is_named() -> None:
    """All at once."""
    arms = [
        arm("old", role="champion", url="http://10.0.0.1/"),
        arm("new"),
        arm("x", url="http://127.0.0.9/"),
    ]
    with pytest.raises(BadDeclaration, match="route 'ads'") as refused:
        await Places.of(DENYING).require_route(parse_route(document(arms=arms)))
    assert [error.field for error in refused.value.errors] == ["arms.0.url", "arms.2.url"]


@pytest.fixture
async def guarded(tmp_path: Path, tables: bytes) -> AsyncIterator[Stage]:
    """A control plane whose gateways call nobody in 10.0.0.0/8."""
    async with staged(tmp_path, tables) as stage:
        stage.app.state.context = replace(stage.context, places=Places.of(DENYING))
        yield stage


async def test_the_api_refuses_it_whichever_way_it_comes(guarded: Stage) -> None:
    """By a whole route, by a new arm and by a change of one: 422 by field, and nothing changes."""
    assert (await guarded.put()).status_code == 201
    before = await guarded.state()
    far = "http://10.0.0.7/"
    arms = [arm("old", role="champion"), arm("new", url=far)]
    for answer, field in (
        (await guarded.put(document(arms=arms)), "arms.1.url"),
        (await guarded.ask("POST", "/routes/ads/arms", arm("third", url=far)), "url"),
        (await guarded.ask("PATCH", "/routes/ads/arms/new", {"url": far}), "url"),
    ):
        assert answer.status_code == 422
        assert faults(answer) == {field: "must not be in deny_networks, got 10.0.0.7"}
    assert await guarded.state() == before
