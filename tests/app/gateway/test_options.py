"""Claims about what a worker is started with: what is said is what is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.gateway.options import SETTINGS_VARIABLE, BadOptions, Options, read_options
from app.gateway.settings import GatewaySettings


def test_what_is_said_is_read() -> None:
    """Folder, name, socket and every setting arrive as they were."""
    settings = GatewaySettings(drain_seconds=2.5, trusted_proxies=("10.0.0.0/8",), private_arms=False)
    options = Options(Path("some where"), "w3.1", 7, settings)
    assert read_options(options.arguments(), options.variables()) == options


def test_listeners_of_ours_are_read_as_they_were_said() -> None:
    """As many as there are, an IPv6 address in brackets."""
    own = frozenset({("127.0.0.1", 8081), ("::1", 8082), ("0.0.0.0", 65_535)})  # noqa: S104  # nobody listens
    options = Options(Path("data"), "w0", 3, own=own)
    assert "[::1]:8082" in options.arguments()
    assert read_options(options.arguments(), {}) == options


@pytest.mark.parametrize(
    "told",
    [
        *("", "8081", ":8081", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x"),
        *("::1:8081", "[127.0.0.1]:1", "model:8081"),
    ],
)
def test_a_listener_that_is_none_is_refused(told: str) -> None:
    """With the name of the argument."""
    arguments = [*Options(Path("data"), "w0", 3).arguments(), "--own", told]
    with pytest.raises(BadOptions, match="--own "):
        read_options(arguments, {})


def test_without_settings_the_defaults_hold() -> None:
    """A worker that is started by hand needs none."""
    options = Options(Path("data"), "w0", 3)
    assert read_options(options.arguments(), {}) == options
    assert options.settings == GatewaySettings()


def test_the_url_of_redis_is_on_no_command_line() -> None:
    """It may hold a password."""
    options = Options(Path("data"), "w0", 3, redis_url="redis://:secret@127.0.0.1/0")
    assert read_options(options.arguments(), options.variables()) == options
    assert not any("secret" in word for word in options.arguments())


@pytest.mark.parametrize("told", ["", "{", "[]", '{"drain_seconds": "long"}', '{"colour": "red"}'])
def test_settings_that_are_none_are_refused(told: str) -> None:
    """With the name of the variable that holds them."""
    with pytest.raises(BadOptions, match=f"{SETTINGS_VARIABLE} does not hold settings: "):
        read_options(Options(Path("data"), "w0", 3).arguments(), {SETTINGS_VARIABLE: told})
