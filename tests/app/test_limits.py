"""A limit is read from a flag, a variable or a file, and what cannot be is named with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.gateway.settings import GatewaySettings
from app.limits import Limits, limits_of_file, limits_of_flags, limits_of_variables
from app.settings import BadSettings

VALUES: list[tuple[str, Any, Any]] = [
    ("head_bytes", "4096", 4_096),
    ("head_bytes", 4_096, 4_096),
    ("body_bytes", "64KiB", 65_536),
    ("body_bytes", "2 MiB", 2_097_152),
    ("body_bytes", "1GiB", 1_073_741_824),
    ("body_rate", "1KiB", 1_024),
    ("head_seconds", "10s", 10.0),
    ("head_seconds", "250ms", 0.25),
    ("idle_seconds", "1m", 60.0),
    ("idle_seconds", "7.5", 7.5),
    ("idle_seconds", 7, 7.0),
    ("drain_seconds", 0, 0.0),
    ("lame_duck_seconds", "15s", 15.0),
    ("connections", "20", 20),
    ("private_arms", "false", False),
    ("private_arms", "True", True),
    ("private_arms", False, False),
    ("deny_networks", "10.0.0.0/8, 192.168.0.0/16", ("10.0.0.0/8", "192.168.0.0/16")),
    ("deny_networks", ["10.0.0.0/8"], ("10.0.0.0/8",)),
    ("deny_networks", "", ()),
    ("access_log", "-", "-"),
    ("access_log", "", None),
    ("traces", None, None),
    ("traces", "http://127.0.0.1:4318", "http://127.0.0.1:4318"),
]
BAD: list[tuple[str, Any, str]] = [
    ("head_bytes", "64KB", "must be bytes, such as 65536, 64KiB or 1MiB, got '64KB'"),
    ("head_bytes", "-1", "must be bytes, such as 65536, 64KiB or 1MiB, got '-1'"),
    ("head_bytes", 1.5, "must be bytes, such as 65536, 64KiB or 1MiB, got 1.5"),
    ("head_bytes", True, "must be bytes, such as 65536, 64KiB or 1MiB, got True"),
    ("head_bytes", "1", "must be in [64, 16777216], got 1"),
    ("body_bytes", "9" * 15 + "GiB", "must be in [0, 1099511627776], got "),
    ("head_seconds", "soon", "must be seconds, or a duration such as 500ms, 10s or 1m, got 'soon'"),
    ("head_seconds", [1], "must be seconds, or a duration such as 500ms, 10s or 1m, got [1]"),
    ("head_seconds", True, "must be seconds, or a duration such as 500ms, 10s or 1m, got True"),
    ("head_seconds", float("inf"), "must be in [0.001, 86400], got inf"),
    ("head_seconds", "0s", "must be in [0.001, 86400], got 0.0"),
    ("connections", "many", "must be a whole number, got 'many'"),
    ("connections", 1.5, "must be a whole number, got 1.5"),
    ("connections", "-1", "must be in [1, 1000000], got -1"),
    ("private_arms", "no", "must be true or false, got 'no'"),
    ("private_arms", 1, "must be true or false, got 1"),
    ("deny_networks", "10.0.0.1/8", "must hold networks such as 10.0.0.0/8, got '10.0.0.1/8'"),
    ("deny_networks", [1], "must be a list of networks, got [1]"),
    ("traces", 5, "must be a text, got 5"),
    ("traces", "x", "must be a URL with scheme http or https, got 'x'"),
]


@pytest.mark.parametrize(("name", "written", "value"), VALUES)
def test_a_limit_is_read_as_it_is_written(name: str, written: Any, value: Any) -> None:
    """Sizes with their unit or in bytes, durations with theirs or in seconds, networks between commas."""
    assert limits_of_file({name: written}, "x") == {name: value}
    if isinstance(written, str):
        assert limits_of_flags([f"{name}={written}"]) == {name: value}
        if written:
            assert limits_of_variables({f"KINGMAKER_GATEWAY_{name.upper()}": written}) == {name: value}


@pytest.mark.parametrize(("name", "written", "message"), BAD)
def test_a_limit_that_cannot_be_is_refused_where_it_stands(name: str, written: Any, message: str) -> None:
    """The message has the place, the bound and the value."""
    places: list[tuple[str, Callable[[], Limits]]] = [
        (f"k.yaml: gateway.{name} {message}", lambda: limits_of_file({name: written}, "k.yaml"))
    ]
    if isinstance(written, str):
        variable = f"KINGMAKER_GATEWAY_{name.upper()}"
        places += [
            (f"--limit {name} {message}", lambda: limits_of_flags([f"{name}={written}"])),
            (f"{variable} {message}", lambda: limits_of_variables({variable: written})),
        ]
    for said, read in places:
        with pytest.raises(BadSettings) as refused:
            read()
        assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    "read",
    [
        lambda: limits_of_flags(["head_byte=1"]),
        lambda: limits_of_variables({"KINGMAKER_GATEWAY_HEAD_BYTE": "1"}),
        lambda: limits_of_file({"head_byte": 1}, "k.yaml"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(read: Callable[[], Limits]) -> None:
    """A typing error is not a setting that has no effect."""
    with pytest.raises(BadSettings, match="got 'head_byte'") as refused:
        read()
    assert ", ".join(GatewaySettings.__struct_fields__) in str(refused.value)


def test_what_is_no_pair_is_refused() -> None:
    """A flag has a name and a value."""
    with pytest.raises(BadSettings, match="--limit must be NAME=VALUE, got 'head_bytes'"):
        limits_of_flags(["head_bytes"])


def test_of_a_name_that_stands_twice_the_last_one_counts() -> None:
    """As with every other flag."""
    assert limits_of_flags(["connections=5", "connections=6"]) == {"connections": 6}


def test_variables_of_others_and_empty_ones_say_nothing() -> None:
    """The port has a variable of its own, and Kubernetes sets some beside a service `kingmaker-gateway`."""
    environment = {
        "KINGMAKER_GATEWAY_PORT": "8080",
        "KINGMAKER_GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
        "KINGMAKER_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "KINGMAKER_GATEWAY_CONNECTIONS": "",
        "KINGMAKER_HOST": "::",
        "PATH": "/bin",
    }
    assert limits_of_variables(environment) == {}
