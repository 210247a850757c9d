"""A setting is the flag's, else the variable's, else the file's, else its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import ConfigError
from app.gateway.settings import GatewaySettings
from app.settings import BadSettings, Settings
from app.sources import settings_from

FILE = """
gateway: {connections: 5, body_bytes: 1KiB, idle_seconds: 1m}
server:
  host: 0.0.0.0
  gateway_port: 9000
  control_port: 9001
  data_dir: there
  database_url: sqlite:///x.db
  workers: 3
route: ads
arms: []
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with settings of every kind beside one route."""
    path = tmp_path / "kingmaker.yaml"
    path.write_text(FILE)
    return path


def refused(tmp_path: Path, text: str) -> str:
    """Why a file is refused."""
    path = tmp_path / "kingmaker.yaml"
    path.write_text(text)
    with pytest.raises(BadSettings) as error:
        settings_from({}, path, (), {})
    return str(error.value)


def test_without_any_source_there_are_defaults() -> None:
    """And what a flag leaves open is no value."""
    assert settings_from({"host": None, "workers": None}, None, (), {}) == Settings()


def test_a_file_gives_what_nothing_else_does(config: Path) -> None:
    """Every setting may stand in it, and its route is there for whoever applies it."""
    assert settings_from({}, config, (), {}) == Settings(
        config=config,
        host="0.0.0.0",  # noqa: S104 - as somebody might
        gateway_port=9_000,
        control_port=9_001,
        data_dir=Path("there"),
        database_url="sqlite:///x.db",
        workers=3,
        routes=({"route": "ads", "arms": []},),
        gateway=GatewaySettings(connections=5, body_bytes=1_024, idle_seconds=60.0),
    )


def test_flags_come_before_variables_and_these_before_the_file(config: Path) -> None:
    """Setting by setting: what one source leaves open the next one gives."""
    environment = {"KINGMAKER_GATEWAY_CONNECTIONS": "6", "KINGMAKER_GATEWAY_BODY_BYTES": "2KiB"}
    settings = settings_from({"host": "::1", "workers": None}, config, ["connections=7"], environment)
    assert (settings.host, settings.workers) == ("::1", 3)
    assert settings.gateway == GatewaySettings(connections=7, body_bytes=2_048, idle_seconds=60.0)


def test_settings_may_stand_alone_in_a_file(tmp_path: Path) -> None:
    """Or beside a list of routes; a mapping without content says nothing."""
    path = tmp_path / "kingmaker.yaml"
    path.write_text("gateway: {connections: 5}\nserver:\n")
    settings = settings_from({}, path, (), {})
    assert (settings.routes, settings.gateway.connections) == ((), 5)
    path.write_text("routes: [{route: a}, {route: b}]\nserver: {workers: 2}\n")
    settings = settings_from({}, path, (), {})
    assert (len(settings.routes), settings.workers) == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "server: {hosts: x}",
            "server.hosts must be a known setting (host, gateway_port, control_port, data_dir",
        ),
        ("server: {1: x}", "server.1 must be a known setting"),
        ("server: {workers: '2'}", "server.workers must be a whole number, got '2'"),
        ("server: {workers: true}", "server.workers must be a whole number, got True"),
        ("server: {host: 127}", "server.host must be a text, got 127"),
        ("server: {workers: 0}", "workers must be in [1, 256], got 0"),
        ("gateway: {connections: 0}", "gateway.connections must be in [1, 1000000], got 0"),
        ("gateway: {connection: 1}", "gateway.connection must be a known limit (head_bytes, "),
        ("gateway: {1: 1}", "gateway.1 must be a known limit"),
    ],
)
def test_a_setting_of_a_file_that_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    """By its place, bound and value."""
    assert message in refused(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Whether it is missing or holds other bytes."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(ConfigError, match=f"config {path} cannot be read"):
            settings_from({}, path, (), {})
