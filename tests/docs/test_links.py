"""No link of any page leads nowhere."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES, ROOT


def _anchors(page: str) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"(?s)^```.*?^```$", "", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_what_is_linked_is_there(page: str) -> None:
    """The file, and the heading within it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), target
        if anchor:
            assert anchor in _anchors(str(place.resolve().relative_to(ROOT))), target
