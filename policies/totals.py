"""Which totals describe an arm of each kind of metric, and could any data have these?

Totals that no data can have are refused, with field, bound and value, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, log, sqrt
from typing import TypeAlias, assert_never

from policies.errors import BadSpec
from policies.posterior import LogRatio, StudentT
from policies.types import Kind

Totals: TypeAlias = Mapping[str, float]

FIELDS: Mapping[Kind, tuple[str, ...]] = {
    Kind.BINARY: ("n", "sum"),
    Kind.COUNT: ("exposure", "sum"),
    Kind.CONTINUOUS: ("n", "sum", "sum_squares"),
    Kind.RATIO: ("n", "num", "den", "num_squares", "den_squares", "cross"),
}
"""What an arm of each kind is described by, by its name on the command line."""

_LARGEST = 1e12
_ROUNDING = 1e-9
_NO_SPREAD = 1e-13


def parse_totals(text: str, field: str, bound: str = "must be NAME=NUMBER,NAME=NUMBER") -> dict[str, float]:
    """`n=100,sum=49` as {"n": 100.0, "sum": 49.0}. Raises BadSpec for `field`."""
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise BadSpec(field, f"{bound}, got {text!r}") from None
        if name.strip() in values:
            raise BadSpec(field, f"must name {name.strip()} once, got {text!r}")
        values[name.strip()] = value
    return values


def check_totals(kind: Kind, totals: Totals, arm: str) -> None:
    """Refuse totals that lack a field or that no data can have.

    Raises:
        BadSpec: for the field `{arm}.{name}`.
    """
    if set(totals) != set(FIELDS[kind]):
        names = ", ".join(FIELDS[kind])
        raise BadSpec(arm, f"must name exactly {names} for kind {kind}, got {', '.join(totals) or 'nothing'}")
    for name, value in totals.items():
        if not isfinite(value):
            raise BadSpec(f"{arm}.{name}", f"must be a finite number, got {value}")
    match kind:
        case Kind.BINARY:
            _whole(f"{arm}.n", totals["n"], 1, _LARGEST)
            _whole(f"{arm}.sum", totals["sum"], 0, totals["n"])
        case Kind.COUNT:
            within(f"{arm}.sum", totals["sum"], 0, _LARGEST)
            _above_0(f"{arm}.exposure", totals["exposure"])
        case Kind.CONTINUOUS:
            _whole(f"{arm}.n", totals["n"], 3, _LARGEST)
        case Kind.RATIO:
            _whole(f"{arm}.n", totals["n"], 2, _LARGEST)
            _above_0(f"{arm}.num", totals["num"])
            _above_0(f"{arm}.den", totals["den"])
        case _:
            assert_never(kind)


def student(totals: Totals, arm: str) -> StudentT:
    """The posterior of a mean under the reference prior. Raises BadSpec without spread."""
    n, total, squares = totals["n"], totals["sum"], totals["sum_squares"]
    variance = _variance(f"{arm}.sum_squares", n, total, squares)
    if variance * (n - 1) <= _NO_SPREAD * squares:
        bound = f"must exceed sum²/n = {total**2 / n:.15g} (equal values show no spread)"
        raise BadSpec(f"{arm}.sum_squares", f"{bound}, got {squares:.15g}")
    return StudentT(df=n - 1, loc=total / n, scale=sqrt(variance / n))


def log_ratio(totals: Totals, arm: str) -> LogRatio:
    """The posterior of R = Σm/Σd: log R with variance V/(nR²), V = (s_mm − 2R s_md + R² s_dd)/d̄².

    Raises:
        BadSpec: variances below 0, a cross product beyond them, or no spread of m around R·d.
    """
    n, num, den, cross = totals["n"], totals["num"], totals["den"], totals["cross"]
    of_num = _variance(f"{arm}.num_squares", n, num, totals["num_squares"])
    of_den = _variance(f"{arm}.den_squares", n, den, totals["den_squares"])
    centre, reach = num * den / n, (n - 1) * sqrt(of_num * of_den) + _ROUNDING * num * den / n
    within(f"{arm}.cross", cross, centre - reach, centre + reach)
    ratio = num / den
    spread = of_num - 2 * ratio * (cross - centre) / (n - 1) + ratio**2 * of_den
    if spread * (n - 1) <= _NO_SPREAD * (totals["num_squares"] + ratio**2 * totals["den_squares"]):
        raise BadSpec(
            f"{arm}.cross", f"must leave some spread of num around its ratio to den, got {cross:.15g}"
        )
    return LogRatio(log=log(ratio), sd=sqrt(spread / n) / (den / n) / ratio)


def within(field: str, value: float, low: float, high: float) -> None:
    """Raise BadSpec unless low ≤ value ≤ high."""
    if not low <= value <= high:
        raise BadSpec(field, f"must be in [{low:.15g}, {high:.15g}], got {value:.15g}")


def _whole(field: str, value: float, low: float, high: float) -> None:
    within(field, value, low, high)
    if value != int(value):
        raise BadSpec(field, f"must be a whole number, got {value:.15g}")


def _above_0(field: str, value: float) -> None:
    if value <= 0:
        raise BadSpec(field, f"must be above 0, got {value:.15g}")


def _variance(field: str, n: float, total: float, squares: float) -> float:
    least = total**2 / n
    if squares < least * (1 - _ROUNDING):
        raise BadSpec(field, f"must be at least (sum of values)²/n = {least:.15g}, got {squares:.15g}")
    return max(0.0, squares - least) / (n - 1)
