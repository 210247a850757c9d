"""The whole demonstration, as `kingmaker demo` plays it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.demo.route import SHORTEST_DAYS
from app.demo.story import run

KINGMAKER = str(Path(sys.executable).with_name("kingmaker"))
TWO_MINUTES = 120.0


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def _told(document: dict[str, Any], kind: str) -> list[str]:
    return [entry["actor"] for entry in document["timeline"] if entry["kind"] == kind]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_better_challenger_is_crowned_and_the_broken_one_caught(tmp_path: Path) -> None:
    """By the policy's own actions, within two minutes, without an error for any caller; nothing stays."""
    began = time.monotonic()
    ran = subprocess.run(
        [KINGMAKER, "demo", "--json", "--seed", "7"],
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - began
    assert (ran.returncode, ran.stderr) == (0, "")
    document = json.loads(ran.stdout)
    assert document["champion"]["champion"] == "gbm-v2"
    assert document["champion"]["crowned"]["actor"] == "policy"
    assert _told(document, "promoted") == _told(document, "rolled_back") == ["policy"]
    assert document["evaluations"][-1]["kind"] == "guardrail"
    assert document["traffic"]["errors"] == 0
    assert document["traffic"]["fallbacks"] > 0
    assert took < TWO_MINUTES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(120)
def test_an_interrupted_story_leaves_nothing_behind(tmp_path: Path) -> None:
    """Told to end in the middle, it stops what it has started, and removes its data."""
    with subprocess.Popen(
        [KINGMAKER, "demo"], env=_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as told:
        assert told.stdout is not None
        while b"put on trial" not in told.stdout.readline():
            assert told.poll() is None
        started = _processes_with(str(tmp_path))
        told.send_signal(signal.SIGTERM)
        _, errors = told.communicate(timeout=60)
    assert len(started) >= 4  # three endpoints and a server
    assert (told.returncode, errors) == (130, b"")
    assert _processes_with(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_story_too_short_for_a_promotion_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer days than the rule needs are refused at once, with the bound, and not with a broken promise."""
    assert run(days=SHORTEST_DAYS - 1, seed=1, keep=False, json_output=False) == 1
    assert "days must be at least 10" in capsys.readouterr().err


def test_a_failure_is_one_json_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads on standard output that, and why, the demonstration failed."""
    assert run(days=1, seed=1, keep=False, json_output=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["seed"]) == (False, 1)
    assert "days must be at least" in document["problem"]


def _processes_with(words: str) -> list[str]:
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if words in line]
