"""What can be wrong with routing data. Every message names field, bound and value."""

from __future__ import annotations


class RoutingError(ValueError):
    """Base of everything that routing refuses."""


class BadWeights(RoutingError):
    """A split that does not describe 100 % of the traffic over known arms."""


class BadToken(RoutingError):
    """A decision token that is malformed, or that no known key has signed."""


class BadModel(RoutingError):
    """What is said of the arms contradicts itself: the champion answers."""


class BadSnapshot(RoutingError):
    """A snapshot that contradicts itself; the one in use stays."""
