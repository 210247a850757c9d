"""The page on operations explains what the log says. Its commands are run by `tests/faults`."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, rows


def test_the_log_says_of_workers_what_is_explained() -> None:
    """Each event is logged under that name."""
    events = {row[0].strip("`") for row in rows("docs/operations.md", "event")}
    assert events
    code = (ROOT / "app/supervisor.py").read_text()
    assert events <= set(re.findall(r'_log\.\w+\(\s*"(\w+)"', code))
