"""Which of two versions comes first? By the precedence of Semantic Versioning 2.0.0, https://semver.org."""

from __future__ import annotations

import re

MAX_VERSION = 256
"""Characters; a longer text is no version."""

Identifier = tuple[bool, int, str]
Precedence = tuple[int, int, int, bool, tuple[Identifier, ...]]
"""Major, minor, patch, whether it is a release, and its pre-release identifiers: compares as versions do."""

_NUMBER = r"0|[1-9][0-9]*"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_VERSION = re.compile(
    rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+{_BUILD}(?:\.{_BUILD})*)?"
)


def precedence(text: str) -> Precedence | None:
    """What a version is ordered by, or None where the text is none. A leading `v` is allowed.

    Build metadata has no say (§10). A version that is no release comes before its release, its identifiers
    compare one by one, numbers before words, and fewer come before more (§11).
    """
    found = _VERSION.fullmatch(text) if len(text) <= MAX_VERSION else None
    if found is None:
        return None
    major, minor, patch, before = found.groups()
    identifiers = () if before is None else tuple(map(_identifier, before.split(".")))
    return int(major), int(minor), int(patch), before is None, identifiers


def _identifier(text: str) -> Identifier:
    return (False, int(text), "") if text.isdigit() else (True, 0, text)
