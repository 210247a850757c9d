"""The server processes: which settings they take from where, what they print, and how they end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.app.cli.conftest import declared
from tests.app.cli.programs import Server, Session, invoke, run

_PORTS = ("--gateway-port", "0", "--control-port", "0")


def test_serve_applies_its_file_says_where_it_listens_and_ends_well(tmp_path: Path) -> None:
    """Settings come from flags or else from variables; the file's routes are there; SIGTERM gives code 0."""
    config = tmp_path / "route.yaml"
    config.write_text(declared("from-file"))
    env = {
        "KINGMAKER_CONFIG": str(config),
        "KINGMAKER_DATA_DIR": str(tmp_path / "data"),
        "KINGMAKER_WORKERS": "2",
    }
    with Server("serve", *_PORTS, env=env) as server:
        assert "from-file" in Session(server).ok("get", "routes")
        assert server.stop() == 0
    assert (tmp_path / "data" / "kingmaker.db").exists()


def test_the_parts_run_as_processes_of_their_own(tmp_path: Path) -> None:
    """Control plane and gateway share a data folder: what one is told, the other answers by."""
    folder = ("--data-dir", str(tmp_path / "data"))
    with Server("control", "--control-port", "0", *folder, addresses=1) as control:
        Session(control).ok("apply", "-f", "-", text=declared("apart"))
        with Server("gateway", "--gateway-port", "0", "--workers", "1", *folder, addresses=1) as gateway:
            until = time.monotonic() + 30
            while httpx.post(f"{gateway.gateway}/v1/decide/apart", json={}).status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.1)


@pytest.mark.parametrize("command", ["control", "worker"])
def test_a_part_that_cannot_start_has_exit_code_1(command: str, tmp_path: Path) -> None:
    """A data folder that cannot be made is named."""
    (tmp_path / "file").write_text("")
    ran = run(command, "--data-dir", str(tmp_path / "file" / "data"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "data_dir must be a folder" in ran.stderr


def test_a_control_plane_for_strangers_wants_a_key_first(tmp_path: Path) -> None:
    """Without any key, listening beyond loopback is refused, and the message says how to make one."""
    ran = run("control", "--host", "192.0.2.1", "--control-port", "0", "--data-dir", str(tmp_path / "data"))
    assert ran.returncode == 1
    assert "kingmaker keys create --role admin" in ran.stderr


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    """Exit code 1, with file and field."""
    config = tmp_path / "route.yaml"
    config.write_text("route: broken\n")
    ran = run("serve", *_PORTS, "--config", str(config), "--data-dir", str(tmp_path / "data"))
    assert ran.returncode == 1
    assert "arms is required" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gateway-port", "70000"), "gateway_port must be in [0, 65535], got 70000"),
        (("--workers", "0"), "workers must be in [1, 256], got 0"),
        (("--gateway-port", "8081"), "gateway_port and control_port must differ, got 8081 twice"),
        (("--workers", "many"), "--workers"),
        (("--limit", "body_bytes=big"), "--limit body_bytes must be bytes, such as"),
        (("--limit", "connections=0"), "--limit connections must be in [1, 1000000], got 0"),
        (("--limit", "speed=1"), "--limit speed must be a known limit (head_bytes, "),
        (("--limit", "speed"), "--limit must be NAME=VALUE, got 'speed'"),
    ],
)
def test_settings_that_cannot_be_are_usage_errors(arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, with field, bound and value."""
    ran = invoke("serve", *arguments)
    assert ran.exit_code == 2
    assert message in " ".join(ran.stderr.split())


def test_a_variable_that_cannot_be_is_a_usage_error() -> None:
    """It is named, with its bound and value."""
    ran = invoke("gateway", env={"KINGMAKER_GATEWAY_IDLE_SECONDS": "0"})
    assert ran.exit_code == 2
    assert "KINGMAKER_GATEWAY_IDLE_SECONDS must be in [0.001, 86400], got 0.0" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("command", ["serve", "gateway", "control", "worker", "migrate", "keys list"])
def test_every_process_reads_the_settings_of_its_file(command: str, tmp_path: Path) -> None:
    """The data folder is the file's, unless a variable or a flag names another."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    config = tmp_path / "kingmaker.yaml"
    config.write_text(f"server: {{data_dir: {blocked / 'data'}, gateway_port: 8080, control_port: 8080}}")
    folder = str(blocked / "other")
    told: list[tuple[tuple[str, ...], dict[str, str]]] = [
        ((), {}),
        ((), {"KINGMAKER_DATA_DIR": folder}),
        (("--data-dir", folder), {"KINGMAKER_DATA_DIR": str(blocked / "unused")}),
    ]
    ports = ("--gateway-port", "0") if command == "serve" else ()
    for (flags, env), used in zip(told, (blocked / "data", folder, folder), strict=True):
        ran = invoke(*command.split(), "--config", str(config), *ports, *flags, env=env)
        assert ran.exit_code == 1, ran.output
        assert f"data_dir must be a folder that can be written, got {used}" in ran.stderr + ran.stdout


def test_a_limit_of_the_file_holds_in_the_gateway_and_a_flag_comes_before_it(tmp_path: Path) -> None:
    """A body beyond it is refused by the workers."""
    config = tmp_path / "kingmaker.yaml"
    config.write_text(
        f"gateway: {{body_bytes: 100}}\nserver: {{data_dir: {tmp_path / 'data'}}}\n{declared('ads')}"
    )
    file = ("serve", *_PORTS, "--config", str(config))
    for flags, status in (((), 413), (("--limit", "body_bytes=1KiB"), 200)):
        with Server(*file, *flags) as server:
            answer = httpx.post(f"{server.gateway}/v1/decide/ads", json={"unit": "u" * 200})
            assert answer.status_code == status
            assert server.stop() == 0


def test_a_part_knows_nothing_of_the_ports_of_others(tmp_path: Path) -> None:
    """A gateway may take port 8081: the control plane that has it by default is not part of this process."""
    (tmp_path / "file").write_text("")
    ran = run("gateway", "--gateway-port", "8081", "--data-dir", str(tmp_path / "file" / "data"))
    assert ran.returncode == 1
    assert "data_dir" in ran.stderr


def test_migrate_says_from_where_to_where(tmp_path: Path) -> None:
    """The first time from nothing to this version's revision, then that it is up to date."""
    folder = ("--data-dir", str(tmp_path / "data"))
    first = json.loads(invoke("migrate", *folder, "--json").stdout)
    assert first["before"] is None
    assert invoke("migrate", *folder).stdout == f"revision {first['after']}: up to date\n"
    fresh = invoke("migrate", "--data-dir", str(tmp_path / "fresh")).stdout
    assert fresh == f"revision none -> {first['after']}\n"


def test_flags_come_before_variables(tmp_path: Path) -> None:
    """With both, the flag's folder is used; an empty variable counts as none."""
    flag, variable = tmp_path / "flag", tmp_path / "variable"
    env = {"KINGMAKER_DATA_DIR": str(variable), "KINGMAKER_DATABASE_URL": ""}
    assert invoke("migrate", "--data-dir", str(flag), env=env).exit_code == 0
    assert (flag.exists(), variable.exists()) == (True, False)
    assert invoke("migrate", env=env).exit_code == 0
    assert variable.exists()


def test_a_database_url_needs_no_data_folder(tmp_path: Path) -> None:
    """What is named is migrated, and no folder is made beside it."""
    url = f"sqlite:///{tmp_path / 'own.db'}"
    assert invoke("migrate", "--database-url", url, "--data-dir", str(tmp_path / "data")).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"own.db"}
    assert not (tmp_path / "data").exists()


def test_a_database_that_is_not_there_is_said_to_be() -> None:
    """Exit code 1, one line, and which flag to look at; the password of the URL stays unseen."""
    ran = invoke("migrate", "--database-url", "postgresql://me:secret@127.0.0.1:1/kingmaker")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("kingmaker: cannot use the database (")
    assert ran.stderr.endswith("is --database-url right?\n")
    assert "secret" not in ran.stderr
