"""Is an operator's regular expression found in a text, in time that grows no faster than the text?

Expressions are those of RE2 (https://github.com/google/re2/wiki/Syntax), without look-around and references
back. RE2 walks a text once. What a byte costs is bounded by the size of the expression, which therefore has
a bound of its own. Many are searched for at once in about the time that one takes. RE2 is loaded with the
first expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

MAX_TEXT = 1_024
"""So many characters of a text are looked at."""

MAX_INSTRUCTIONS = 500
"""What an expression may compile to. The worst one then needs some milliseconds for the worst text."""

_MEMORY_BYTES = 1 << 20
"""What an expression and the automata made of it may take up; several that are searched for at once, too."""

_EVERYWHERE = b""
"""It is found in every text, so that to find nothing is not taken for having given up."""


class Pattern(Protocol):
    """An expression, ready to be searched for."""

    def search(self, text: bytes) -> object | None:
        """Where it is found, or None."""


class Together(Protocol):
    """Several expressions, ready to be searched for at once."""

    def Match(self, text: bytes) -> list[int] | None:  # noqa: N802 - the name is RE2's
        """Which of them are found, in any order; None: none, or there was not enough memory."""


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


def size_of(expression: str) -> int:
    """What an expression compiles to, in instructions of RE2; 0 where there is a `refusal` of it."""
    compiled = _compiled(expression)
    return 0 if isinstance(compiled, str) else _instructions(compiled)


def is_found(pattern: Pattern, text: str) -> bool:
    """Whether it is found anywhere in the first 1,024 characters; `^` and `$` stand for their ends."""
    return pattern.search(_beginning(text)) is not None


def together(expressions: Sequence[str]) -> Together | None:
    """Expressions that can be had, ready to be searched for at once; None: they are too large for that."""
    re2 = import_module("re2")
    try:
        every = re2.Set.SearchSet(_options(re2))
        every.Add(_EVERYWHERE)
        for expression in expressions:
            every.Add(expression.encode("utf-8", "surrogatepass"))
        every.Compile()
    except re2.error:
        return None
    found: Together = every
    return found


def all_found(every: Together, text: str) -> list[int] | None:
    """The places of those that `is_found` would find, in order; None: each is to be searched for alone.

    RE2 gives up where its automata outgrow their memory, and then says that not even the empty one is found.
    """
    places = every.Match(_beginning(text))
    return None if not places else sorted([place - 1 for place in places if place])


def _beginning(text: str) -> bytes:
    return text[:MAX_TEXT].encode("utf-8", "surrogatepass")


def _options(re2: Any) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY_BYTES
    return options


def _instructions(compiled: Any) -> int:
    return max(int(compiled.programsize), int(compiled.reverseprogramsize))


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> Pattern | str:
    re2 = import_module("re2")
    try:
        compiled = re2.compile(expression.encode("utf-8", "surrogatepass"), _options(re2))
    except re2.error as error:
        return f"must be a regular expression of RE2 ({error.args[0].decode(errors='replace')})"
    size = _instructions(compiled)
    if size > MAX_INSTRUCTIONS:
        return f"must compile to at most {MAX_INSTRUCTIONS} instructions of RE2 ({size})"
    found: Pattern = compiled
    return found
