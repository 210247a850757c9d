"""What the command line is made of, and how quickly it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from routing.rules import Op
from tests.app.cli.programs import invoke

COMMANDS = (
    "serve", "gateway", "control", "worker", "demo", "migrate", "apply", "export", "get", "start", "promote",
    "rollback", "pause", "resume", "approve", "kill", "override", "bandit", "keys", "compare", "timeline",
    "evaluate-policy",
)  # fmt: skip
SLOW = {
    "alembic",
    "fastapi",
    "httpx",
    "numpy",
    "pydantic",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "uvicorn",
    "yaml",
}


def test_every_command_is_listed_with_what_it_does() -> None:
    """The help names each command of this version, and cuts none of their descriptions off."""
    lines = invoke("--help").stdout.partition("Commands:")[2].splitlines()
    listed = {line.split()[0]: line for line in lines if line.strip()}
    assert set(listed) == set(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("..") for line in listed.values())


@pytest.mark.parametrize(
    "command", [*COMMANDS, "get rollout", "get evaluations", "keys create", "override add"]
)
def test_every_command_explains_itself(command: str) -> None:
    """--help works everywhere and says more than the usage line."""
    ran = invoke(*command.split(), "--help")
    assert ran.exit_code == 0
    assert len(ran.stdout.splitlines()) > 4


@pytest.mark.parametrize("group", ["get", "override", "bandit", "keys"])
def test_no_description_of_a_group_is_cut(group: str) -> None:
    """Each fits its line."""
    lines = invoke(group, "--help").stdout.partition("Commands:")[2].split("\n")
    cut = [line for line in lines if line.endswith("...")]
    assert cut == []


def test_the_operators_of_conditions_are_named() -> None:
    """Where a condition is written."""
    said = invoke("override", "add", "--help").stdout.replace(",", " ").split()
    assert set(Op) <= set(said)


def test_help_loads_nothing_heavy() -> None:
    """The whole command line is there before anything is loaded that takes long to load."""
    program = "import app.cli, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(ran.stdout.split()) & SLOW


@pytest.mark.parametrize("given", [None, "2"])
def test_numpy_computes_in_one_thread(given: str | None) -> None:
    """In every process that a command is, or starts; unless the environment asks for another number."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    if given is not None:
        environment["OPENBLAS_NUM_THREADS"] = given
    program = """
import atexit, sys
from app.cli import main
def tell():
    import numpy, os, threadpoolctl
    pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    print(os.environ["OPENBLAS_NUM_THREADS"], *pools)
atexit.register(tell)
main()
"""
    command = [sys.executable, "-c", program, "--version"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    asked, *pools = ran.stdout.splitlines()[-1].split()
    assert asked == (given or "1")
    assert given is not None or set(pools) <= {"1"}


def test_the_version_is_that_of_the_package() -> None:
    """--version says what is installed."""
    assert invoke("--version").stdout == f"kingmaker {version('kingmaker')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("crown",),
        ("get", "crown"),
        ("serve", "--crown"),
        ("promote", "ad-bidder"),
        ("start", "ad-bidder"),
        (),
    ],
)
def test_bad_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    """An unknown command, an unknown flag, a missing reason or argument: code 2, and stderr says what."""
    ran = invoke(*arguments)
    assert ran.exit_code == 2
    assert ran.stderr


def test_the_demonstration_says_what_it_needs() -> None:
    """Without the extra `demo`, the command says how to install it, with exit code 1."""
    program = "import sys; sys.modules['sklearn'] = None; from app.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", program, "demo"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert 'pip install "kingmaker[demo]"' in ran.stderr
