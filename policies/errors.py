"""What a policy refuses, and what it cannot judge."""

from __future__ import annotations


class PolicyError(ValueError):
    """Base of everything that the promotion side refuses."""


class BadSpec(PolicyError):
    """A field of a route's declaration that cannot be: names field, bound and value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


class CannotJudge(PolicyError):
    """There is no honest number to give. `reason` is a stable word, the message a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IllegalTransition(PolicyError):
    """A rollout cannot do this from where it is."""
