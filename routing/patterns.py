"""Is an operator's regular expression found in a text, in time that grows no faster than the text?

Expressions are those of RE2 (https://github.com/google/re2/wiki/Syntax), without look-around and references
back. RE2 walks a text once. What a byte costs is bounded by the size of the expression, which therefore has
a bound of its own. RE2 is loaded with the first expression.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Protocol

MAX_TEXT = 1_024
"""So many characters of a text are looked at."""

MAX_INSTRUCTIONS = 500
"""What an expression may compile to. The worst one then needs some milliseconds for the worst text."""

_MEMORY_BYTES = 1 << 20
"""What an expression and the automata made of it may take up."""


class Pattern(Protocol):
    """An expression, ready to be searched for."""

    def search(self, text: bytes) -> object | None:
        """Where it is found, or None."""


def pattern(expression: str) -> Pattern:
    """The expression, ready to be searched for.

    Raises:
        ValueError: there is a `refusal` of it.
    """
    compiled = _compiled(expression)
    if isinstance(compiled, str):
        raise ValueError(f"{compiled}, got {expression!r}")
    return compiled


def refusal(expression: str) -> str | None:
    """Why this is no expression that can be had; None: it is one."""
    compiled = _compiled(expression)
    return compiled if isinstance(compiled, str) else None


def is_found(pattern: Pattern, text: str) -> bool:
    """Whether it is found anywhere in the first 1,024 characters; `^` and `$` stand for their ends."""
    return pattern.search(text[:MAX_TEXT].encode("utf-8", "surrogatepass")) is not None


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> Pattern | str:
    re2 = import_module("re2")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY_BYTES
    try:
        compiled = re2.compile(expression.encode("utf-8", "surrogatepass"), options)
    except re2.error as error:
        return f"must be a regular expression of RE2 ({error.args[0].decode(errors='replace')})"
    size = max(compiled.programsize, compiled.reverseprogramsize)
    if size > MAX_INSTRUCTIONS:
        return f"must compile to at most {MAX_INSTRUCTIONS} instructions of RE2 ({size})"
    found: Pattern = compiled
    return found
