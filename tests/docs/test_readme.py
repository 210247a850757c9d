"""What the README shows is what happens: its commands are run as they stand, on free ports."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
_SECONDS = 60


def _block(heading: str) -> str:
    """The first shell block under a heading."""
    found = re.search(rf"^## {re.escape(heading)}$.*?^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _replaced(text: str, ports: dict[str, int]) -> str:
    for known, free in ports.items():
        text = text.replace(known, str(free))
    return text


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """A folder that looks like the repository, with the ports of its example changed to free ones."""
    ports = dict(zip(("9001", "9002", "8080", "8081"), _free_ports(4), strict=True))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "deploy").mkdir()
    example = (ROOT / "deploy/routes.example.yaml").read_text()
    (tmp_path / "deploy/routes.example.yaml").write_text(_replaced(example, ports))
    return tmp_path, ports


def test_the_lines_under_use_it_run(checkout: tuple[Path, dict[str, int]]) -> None:
    """They bring up two models and the gateway, report an outcome, and move traffic, in this order."""
    folder, ports = checkout
    blocks = _block("Use it") + _block("How a challenger is promoted")
    lines = [line for line in blocks.splitlines() if not line.startswith("make ")]
    settings = {
        "PATH": f"{folder / '.venv/bin'}:{os.environ['PATH']}",
        "KINGMAKER_GATEWAY_PORT": str(ports["8080"]),
        "KINGMAKER_CONTROL_PORT": str(ports["8081"]),
        "KINGMAKER_SERVER": f"http://127.0.0.1:{ports['8081']}",
    }
    with (folder / "out.txt").open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", _replaced("\n".join(lines), ports)],
            cwd=folder, env=os.environ | settings, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            status = shell.wait(_SECONDS)
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    said = (folder / "out.txt").read_text()
    assert status == 0, said
    assert '"model": "' in said
    assert '{"accepted":1,"rejected":[]}' in said
    assert "route_created" in said
    assert "61.1 %" in said, "the chance to beat"
