"""Settings of a worker have bounds, and survive the way to it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.gateway.settings import BOUNDS, NETWORKS, BadLimit, GatewaySettings

BAD: list[tuple[dict[str, Any], str]] = [
    ({"head_seconds": float("nan")}, "head_seconds must be in [0.001, 86400], got nan"),
    ({"trusted_proxies": ("10.0.0.1/8",)}, "must hold networks such as 10.0.0.0/8, got '10.0.0.1/8'"),
    ({"allow_networks": ("models",)}, "allow_networks must hold networks such as 10.0.0.0/8, got 'models'"),
    ({"deny_networks": ("::/0", "")}, "deny_networks must hold networks such as 10.0.0.0/8, got ''"),
    ({"access_log": ""}, "access_log must be the path of a file, or - for standard output, got ''"),
    ({"access_log": "a\0b"}, "access_log must be the path of a file"),
    ({"traces": "collector:4318"}, "must be a URL with scheme http or https, got 'collector:4318'"),
    ({"traces": "http://"}, "traces must be a URL with scheme http or https, got 'http://'"),
    ({"traces": "http://[::1"}, "traces must be a URL"),
    ({"traces": "http://collector:99999"}, "traces must be a URL"),
]


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_is_taken_up_to_its_bounds_and_refused_beyond(name: str) -> None:
    """The message has the field, its bounds and the value; the default lies within."""
    low, high = BOUNDS[name]
    for value in (low, high):
        given: dict[str, Any] = {name: value}
        assert getattr(GatewaySettings(**given), name) == value
    assert low <= getattr(GatewaySettings(), name) <= high
    for value in (low - 1, high + 1):
        beyond: dict[str, Any] = {name: value}
        with pytest.raises(BadLimit) as refused:
            GatewaySettings(**beyond)
        assert str(refused.value) == f"{name} must be in [{low}, {high}], got {value}"
        assert refused.value.field == name


def test_every_number_has_bounds() -> None:
    """What is neither a switch, a text nor a list is in the table."""
    others = {"private_arms", "cors_origins", "access_log", "traces"}
    assert set(GatewaySettings.__struct_fields__) == {*BOUNDS, *NETWORKS, *others}


@pytest.mark.parametrize(("given", "message"), BAD)
def test_a_value_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    """By field, bound and value."""
    with pytest.raises(BadLimit) as refused:
        GatewaySettings(**given)
    assert message in str(refused.value)


def test_settings_survive_the_way_to_a_worker() -> None:
    """As JSON and back they are the same; what is out of bounds is refused on that way too."""
    settings = GatewaySettings(
        body_bytes=5,
        trusted_proxies=("10.0.0.0/8", "::1"),
        cors_origins=("https://shop.example.com",),
        access_log="-",
        traces="https://collector.example.com:4318/v1/traces",
    )
    assert msgspec.json.decode(msgspec.json.encode(settings), type=GatewaySettings) == settings
    with pytest.raises(msgspec.ValidationError, match="connections must be in"):
        msgspec.json.decode(b'{"connections": 0}', type=GatewaySettings)
