"""The pages that people read, by their place in the repository, and what they show as code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILES = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(_FILES)}


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def spans(page: str) -> list[str]:
    """What a page shows as code within a line."""
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table of a page whose first heading is this one."""
    lines = PAGES[page].split(f"\n| {first} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
