"""Claims about what a process says of itself: one JSON object a line, whatever it has to say."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.telemetry import JsonLines

ROOT = Path(__file__).parents[2]


def _line(message: str = "happened", error: BaseException | None = None, **fields: object) -> dict[str, Any]:
    """What a record looks like when it is read back."""
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("app.part", logging.ERROR, "part.py", 1, message, (), info)
    record.fields = fields
    text = JsonLines().format(record)
    assert "\n" not in text
    return dict(json.loads(text.encode("utf-8", "strict")))


def test_a_record_is_one_object() -> None:
    """When, how bad, what, where, and the fields that were given."""
    line = _line(worker="w0", code=-9)
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "error",
        "event": "happened",
        "logger": "app.part",
        "worker": "w0",
        "code": -9,
    }


def test_a_trace_stays_on_the_line() -> None:
    """An exception with many lines is one field."""
    with pytest.raises(ValueError, match="two") as raised:
        raise ValueError("two\nlines")
    trace = _line(error=raised.value)["trace"]
    assert trace.startswith("Traceback")
    assert trace.endswith("two\nlines")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Path("/a/b"), "PosixPath('/a/b')"),
        (OSError("no"), "OSError('no')"),
        (2**80, 2**80),
        ("a\ud800b", "a\ud800b"),
        ("line\u2028end\r\n", "line\u2028end\r\n"),
    ],
    ids=["path", "error", "huge", "half-a-character", "line-ends"],
)
def test_any_value_can_be_said(value: object, shown: object) -> None:
    """What JSON does not know is written as Python shows it; what Unicode does not know is escaped."""
    assert _line(value=value)["value"] == shown


def test_lines_go_to_stderr_and_chatter_is_left_out() -> None:
    """Ours from info up, libraries' from warning up; standard output is for users."""
    said = "; ".join(
        f"logging.getLogger({name!r}).info({name!r})"
        for name in ("app.part", "uvicorn.error", "httpx", "alembic")
    )
    script = f"import logging; from app.telemetry import configure; configure(); {said}"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == ""
    assert [json.loads(line)["event"] for line in ran.stderr.splitlines()] == ["app.part"]
