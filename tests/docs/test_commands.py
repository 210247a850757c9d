"""Every command that a page names is there, and has the arguments and options that the page gives it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from app.cli import PROGRAM, app
from benchmarks.__main__ import PARTS, _parser
from tests.docs.pages import PAGES, ROOT, blocks, rows, spans

LINES = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
SPANS = [span for page in PAGES for span in spans(page)]
NAMED = sorted({span for span in SPANS if re.match(rf"{PROGRAM} [a-z]", span)})
PERFORMANCE = "docs/performance.md"


def _words(line: str) -> list[str]:
    """The words after the name of our program, up to the end of the command; none: it is another's."""
    program, *words = shlex.split(line, comments=True) or [""]
    ends = [number for number, word in enumerate(words) if word in ("&", "|")]
    return words[: min(ends, default=len(words))] if program.rpartition("/")[2] == PROGRAM else []


def _named(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and what is left of them."""
    command: Any = get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("line", sorted({line for line in LINES if _words(line)}))
def test_a_command_that_is_shown_is_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all of its arguments, where the files are that it reads. Nothing is run."""
    monkeypatch.chdir(tmp_path)
    words = _words(line)
    for word in words:
        if Path(word).suffix in (".yaml", ".ndjson"):
            (tmp_path / word).parent.mkdir(exist_ok=True)
            (tmp_path / word).touch()
    if not words[0].startswith("-"):
        command, rest = _named(words)
        command.make_context(command.name, rest).close()


@pytest.mark.parametrize("span", NAMED)
def test_a_command_that_is_mentioned_is_there(span: str) -> None:
    """With the options that stand beside it."""
    command, rest = _named(shlex.split(span)[1:])
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in rest if word.startswith("-")} <= options


def test_every_target_of_make_that_is_named_is_there() -> None:
    """And is listed by `make help`, apart from those that only others use."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found[1] for text in (*LINES, *SPANS) if (found := re.match(r"make ([a-z-]+)", text))}
    assert {"test", "bench", "compiled"} <= named <= targets


def test_the_options_of_the_measurements_are_understood() -> None:
    """As `BENCH` gives them to the program, or as they stand behind dots; and every part is named."""
    given = [found[1] for span in SPANS if (found := re.search(r'BENCH="?([^"]+)"?$', span))]
    shown = [span for row in rows(PERFORMANCE, "command") for span in re.findall(r"`… ([^`]+)`", row[0])]
    assert given
    assert shown
    for arguments in (*given, *shown):
        _parser().parse_args(shlex.split(arguments))
    (listed,) = [row[1] for row in rows(PERFORMANCE, "command") if "these parts" in row[1]]
    assert set(re.findall(r"`([a-z]+)`", listed)) == set(PARTS)
