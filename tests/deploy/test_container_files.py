"""The container files: what a reader of them relies on, held without a container runtime."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from typer.main import get_command

from app.cli import app

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


@pytest.fixture
def dockerfile(tmp_path: Path) -> list[dict[str, Any]]:
    """The instructions of the Dockerfile, in order; read from a copy, as the parser may write."""
    (tmp_path / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
    instructions: list[dict[str, Any]] = DockerfileParser(str(tmp_path)).structure
    return [instruction for instruction in instructions if instruction["instruction"] != "COMMENT"]


def _values(dockerfile: list[dict[str, Any]], instruction: str) -> list[str]:
    return [line["value"] for line in dockerfile if line["instruction"] == instruction]


def _pinned(image: str) -> bool:
    tag = image.partition(":")[2].partition(" ")[0]
    return tag not in ("", "latest")


def test_everything_copied_into_the_image_exists(dockerfile: list[dict[str, Any]]) -> None:
    """No COPY names a file that the repository does not hold."""
    sources = [
        source
        for value in _values(dockerfile, "COPY")
        if not value.startswith("--from=")
        for source in value.split()[:-1]
    ]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_everything_copied_into_the_image_is_let_in(dockerfile: list[dict[str, Any]]) -> None:
    """What the Dockerfile copies, .dockerignore lets through."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for value in _values(dockerfile, "COPY")
        if not value.startswith("--from=")
        for source in value.split()[:-1]
    }
    assert copied == allowed


def test_the_image_runs_as_a_numeric_user_that_is_not_root(dockerfile: list[dict[str, Any]]) -> None:
    """The last stage names a user by number, so that an orchestrator can see that it is not root."""
    last_stage = max(index for index, line in enumerate(dockerfile) if line["instruction"] == "FROM")
    (user,) = _values(dockerfile[last_stage:], "USER")
    assert all(part.isdigit() and int(part) > 0 for part in user.split(":"))


def test_every_image_names_its_version(dockerfile: list[dict[str, Any]]) -> None:
    """No image, built on or run, floats with whatever is newest."""
    images = _values(dockerfile, "FROM") + [service["image"] for service in SERVICES.values()]
    assert [image for image in images if not _pinned(image)] == []


def test_the_compose_file_follows_the_specification() -> None:
    """The compose file is valid by the schema of the Compose specification."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    ran = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", ROOT / "deploy/compose.yaml"],
        env=os.environ | {"PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_a_command_that_exists(service: str) -> None:
    """The first word of each command is one of the command line, and each option is one of that command."""
    command, *arguments = OURS[service]["command"]
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a typer app with several commands is a group
    assert command in commands
    known = {option for parameter in commands[command].params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_every_setting_of_a_container_is_read_by_the_code(dockerfile: list[dict[str, Any]]) -> None:
    """No KINGMAKER_… variable is set that nothing looks at."""
    described = " ".join(_values(dockerfile, "ENV")) + (ROOT / "deploy/compose.yaml").read_text()
    code = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    settings = set(re.findall(r"KINGMAKER_[A-Z_]+", described))
    assert settings
    assert {setting for setting in settings if setting not in code} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_privileges(service: str) -> None:
    """Every service runs as a user that is not root, without capabilities, on files it cannot write."""
    declared = SERVICES[service]
    assert int(declared["user"].split(":")[0]) > 0
    assert declared["cap_drop"] == ["ALL"]
    assert declared["security_opt"] == ["no-new-privileges:true"]
    assert declared["read_only"] is True


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_publishes_on_loopback_only(service: str) -> None:
    """No port is open to the network before someone decides that it should be."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


def test_no_password_has_a_default() -> None:
    """A secret comes from the environment, and without it nothing starts."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    mentions = text.count("${POSTGRES_PASSWORD")
    assert mentions > 0
    assert text.count("${POSTGRES_PASSWORD:?") == mentions


def test_what_a_service_waits_for_can_come_about() -> None:
    """A service waits only for services that exist: for health where it is checked, or for an end."""
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            awaited = SERVICES[name]
            if wait["condition"] == "service_healthy":
                assert not awaited["healthcheck"].get("disable")
            else:
                assert awaited["restart"] == "on-failure"
