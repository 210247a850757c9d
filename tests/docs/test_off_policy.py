"""The guide to off-policy evaluation shows what happens: its files and commands are used as they are."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from inspect import getsource
from pathlib import Path

import pytest

from app import decision_logs, targets
from app.candidates import parse_candidate
from app.control.api.off_policy import evaluate_off_policy
from app.control.off_policy import CandidateDocument, candidate_of
from app.event_lines import read_events
from policies import off_policy, rewards, support
from policies.metrics import Metric
from policies.off_policy import Method
from policies.types import Kind
from tests.app.cli.programs import PROGRAM

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/off-policy.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    table = PAGE.split(heading, 1)[1].split("\n\n")
    lines = next(part for part in table if part.startswith("|")).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    """The route, the program that makes the log, the command, and every number that it prints."""
    (tmp_path / "route.yaml").write_text(blocks("yaml")[0])
    subprocess.run([sys.executable, "-W", "error", "-c", blocks("python")[0]], cwd=tmp_path, check=True)
    program, *arguments = shlex.split(blocks("sh")[0])
    assert program == "kingmaker"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KINGMAKER_")}
    ran = subprocess.run(
        [PROGRAM, *arguments], cwd=tmp_path, env=plain, capture_output=True, text=True, check=True
    )
    assert (ran.stdout.rstrip(), ran.stderr) == (blocks("text")[0].rstrip(), "")


def test_the_lines_shown_are_events() -> None:
    """A decision and its outcome."""
    events = read_events(io.BytesIO(blocks("json")[0].encode()), "page", [Metric("conversion", Kind.BINARY)])
    assert [decision.id for decision in events.decisions] == list(events.outcomes) == ["d1"]


@pytest.mark.parametrize(
    ("flag", "document", "_"),
    rows("# Off-policy evaluation"),
    ids=[row[0].strip("`") for row in rows("# Off-policy evaluation")],
)
def test_a_candidate_is_the_same_in_flag_and_api(flag: str, document: str, _: str) -> None:
    """As the table has it, with arms in place of ARM, A and B."""
    written = re.sub(r"\b(ARM|A|B)\b(?=[,=}:]|$)", lambda found: found[0].lower(), flag.strip("`"))
    quoted = re.sub(r"\b(ARM|A|B)\b", lambda found: f'"{found[0].lower()}"', document.strip("`"))
    asked = CandidateDocument.model_validate(json.loads(quoted))
    assert candidate_of(asked) == parse_candidate(written)


def test_every_method_and_every_reason_is_explained() -> None:
    """And no other; the API's description names the reasons, too."""
    assert {row[0].strip("`") for row in rows("## The four numbers")} == set(Method) - {Method.LOGGED}
    sources = "".join(map(getsource, (off_policy, support, rewards, targets, decision_logs)))
    known = set(re.findall(r'"((?:no|too|propensities)_[a-z_]+)"', sources))
    assert {row[0].strip("`") for row in rows("## When it is refused")} == known
    assert all(f"`{reason}`" in (evaluate_off_policy.__doc__ or "") for reason in known)


def test_what_is_linked_is_there() -> None:
    """From here, and to here from the README."""
    linked = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)
    assert linked
    assert [target for target in linked if not (ROOT / "docs" / target).exists()] == []
    assert "docs/off-policy.md" in (ROOT / "README.md").read_text()
