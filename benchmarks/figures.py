"""What a measurement found: figures with their unit and spread, and gaps with the reason for them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True, tag="figure"):
    """One measured thing: the median of `values` with their range. `values` are in the order measured."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    values: tuple[float, ...]


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag="gap"):
    """Something that could not be measured here, and why. `failed`: it should have been possible."""

    name: str
    why: str
    failed: bool = False


Finding = Figure | Gap


class MeasurementFailed(Exception):
    """What was measured did not do what is measured, so that its figures say nothing."""


def figure(name: str, unit: str, values: Sequence[float]) -> Figure:
    """The figure of these values.

    Raises:
        MeasurementFailed: there are none.
    """
    if not values:
        raise MeasurementFailed(f"{name}: values must hold at least one, got none")
    return Figure(
        name=name, unit=unit, median=median(values), low=min(values), high=max(values), values=tuple(values)
    )


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """The figure of the ratios ours/theirs, round by round: what was measured next to each other."""
    return figure(name, "×", [a / b for a, b in zip(ours, theirs, strict=True)])
