"""The guide to overrides shows what can be said, what comes of it, and how much of it there may be."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from app.commands.conditions import parse_condition
from app.control.dry_runs import OverrideOutcome
from app.control.overrides import (
    MOST_BYTES,
    MOST_CHARACTERS,
    MOST_EXPRESSIONS,
    MOST_INSTRUCTIONS,
    MOST_OVERRIDES,
    OverrideDocument,
)
from routing.features import Value
from routing.overrides import MAX_CHARACTERS, MAX_CONDITIONS, MAX_PRIORITY, MAX_VALUES, Rules, problems_of
from routing.rules import TOTAL_SHARE_BP, Condition, Op, Override
from tests.app.cli.programs import Server, Session

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/overrides.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
CONTEXT = [
    {"name": "country", "from": {"header": "X-Country"}, "type": "id"},
    {"name": "hour", "from": {"header": "X-Hour"}, "type": "numeric", "min": 0, "max": 23},
]


def _table(first: str) -> list[list[str]]:
    """The rows of the table whose first heading is this one."""
    lines = PAGE.split(f"\n| {first} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


class Asked:
    """A request that has one value, wherever it is looked for; or none."""

    def __init__(self, text: str, attribute: str) -> None:
        self._value = float(text) if attribute == "context.hour" else text or None

    def value(self, attribute: str) -> Value | None:
        """That value."""
        return self._value


def _rules(line: str) -> tuple[Rules, str]:
    """An override of this one condition, and the attribute that it looks at."""
    found = parse_condition(line)
    values = tuple(found["values"])
    condition = Condition(attribute=found["attribute"], op=Op(found["op"]), values=values)
    assert problems_of([condition], 1, 1) == []
    return Rules([Override(id=1, arm_id=1, when=(condition,))]), found["attribute"]


def test_every_operator_is_there_in_order() -> None:
    """And none that is none."""
    assert [row[0] for row in _table("op")] == list(Op)


@pytest.mark.parametrize("row", _table("op"), ids=lambda row: row[0])
def test_an_operator_holds_for_what_the_guide_says(row: list[str]) -> None:
    """Its example can be said, holds for one value, not for the other, and without any as it is written."""
    op, _, without, line, yes, no = row
    rules, attribute = _rules(line)
    assert line.split()[1] == op
    for text, expected in ((yes, True), (no, False), *([("", without == "yes")] if op != "exists" else [])):
        found = rules.find(Asked(text, attribute if text else ""), 0, lambda _: 0)
        assert (found is not None) is expected, text


def test_the_body_that_is_shown_is_one() -> None:
    """With every field."""
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    document = OverrideDocument.model_validate(json.loads(shown))
    assert set(json.loads(shown)) == set(OverrideDocument.model_fields)
    when = [Condition(**{**dict(each), "values": tuple(each.values)}) for each in document.when]
    assert problems_of(when, document.share, document.priority) == []


def test_the_limits_are_those_of_the_code() -> None:
    """Each number."""
    assert [re.findall(r"\b[0-9]+(?:,[0-9]{3})*", row[1]) for row in _table("limit")] == [
        [f"{MOST_OVERRIDES:,}"],
        [f"{MAX_CONDITIONS:,}"],
        [f"{MAX_VALUES:,}"],
        [f"{MAX_CHARACTERS:,}"],
        [f"{MOST_BYTES:,}"],
        [f"{MOST_CHARACTERS:,}"],
        [f"{MOST_EXPRESSIONS:,}", f"{MOST_INSTRUCTIONS:,}"],
        ["1", f"{TOTAL_SHARE_BP:,}"],
        ["0", f"{MAX_PRIORITY:,}"],
    ]


def test_every_outcome_is_explained() -> None:
    """And none that is none."""
    assert {row[0] for row in _table("outcome of an override")} == set(get_args(OverrideOutcome))


@pytest.fixture(scope="module")
def kingmaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A server with the route of the examples, and the features that the guide names."""
    folder = tmp_path_factory.mktemp("guide")
    content = yaml.safe_load((ROOT / "deploy/routes.example.yaml").read_text())
    content["routes"][0]["context"] = CONTEXT
    (folder / "routes.yaml").write_text(yaml.safe_dump(content))
    ports = ("--gateway-port", "0", "--control-port", "0")
    data = ("--data-dir", str(folder / "data"), "--config", str(folder / "routes.yaml"))
    with Server("serve", *ports, *data) as server:
        yield Session(server)


def test_the_commands_of_the_guide_work_in_order(kingmaker: Session) -> None:
    """Three are added, listed, asked and one removed; the dry runs say why."""
    said = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "kingmaker"
        said[line] = kingmaker.ok(*arguments)
    first, second, third = [text for line, text in said.items() if " add " in line]
    assert "unit in u1,u2" in first
    assert "expires" in second
    assert "context.country equals DE; method equals POST" in third
    with_version, with_country, with_path = [text for line, text in said.items() if " dry-run " in line]
    assert "header.X-App semver_lt 2.1.0: it has 2.2.0" in with_version
    assert "method equals POST: it has nothing" in with_country
    assert "u2" in with_path.splitlines()[0]
