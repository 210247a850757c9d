"""Decision records have one form, are in the index, and name a check that there is."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, ROOT

INDEX = "docs/decisions/README.md"
RECORDS = [page for page in PAGES if page.startswith("docs/decisions/") and page != INDEX]


@pytest.mark.parametrize("page", RECORDS)
def test_a_record_has_context_decision_consequences_and_what_holds_it(page: str) -> None:
    """In this order; the decision begins with one bold sentence."""
    text = PAGES[page]
    number = page.removeprefix("docs/decisions/")[:4]
    assert text.startswith(f"# {number}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Held by"]
    assert re.search(r"^## Decision\n\n\*\*[^*]+\.\*\*$", text, re.MULTILINE)


@pytest.mark.parametrize("page", RECORDS)
def test_what_holds_a_decision_is_there(page: str) -> None:
    """Each file that is named as its check."""
    held = PAGES[page].split("\n## Held by\n", 1)[1]
    files = re.findall(r"`((?:app|benchmarks|policies|routing|tests)/[\w./-]+)`", held)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_record_is_in_the_index_once() -> None:
    """By its number, in order."""
    listed = re.findall(r"^\| \[(\d{4})\]\((\d{4}-[a-z0-9-]+\.md)\) \|", PAGES[INDEX], re.MULTILINE)
    assert [f"docs/decisions/{file}" for _, file in listed] == RECORDS
    assert all(file.startswith(number) for number, file in listed)
