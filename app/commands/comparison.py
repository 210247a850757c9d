"""What do the flags of `compare` say, and how is what they lead to shown?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import RenderableType

from app.commands.answers import show
from app.commands.options import Json
from app.tables import facts, interval, percent, relative, table
from policies.errors import BadSpec
from policies.types import Better, Kind

if TYPE_CHECKING:
    from policies.comparison import Comparison, Interval

_Parsed = TypeVar("_Parsed")
_TOTALS = "Totals: NAME=NUMBER,… with the names of the kind."


def compare(
    kind: Annotated[Kind, typer.Option(help="What the values of the metric are.", show_default=False)],
    champion: Annotated[str, typer.Option(metavar="TOTALS", help=_TOTALS, show_default=False)],
    challenger: Annotated[str, typer.Option(metavar="TOTALS", help=_TOTALS, show_default=False)],
    better: Annotated[Better, typer.Option(help="Which direction is good.")] = Better.HIGHER,
    prior: Annotated[
        str, typer.Option(metavar="flat|jeffreys|a=1,b=1", help="What is believed before.")
    ] = "flat",
    as_json: Json = False,
) -> None:
    """Compare two arms by their totals alone, without a server.

    \b
    Totals by kind:
      binary      n=100,sum=49
      count       exposure=100,sum=10
      continuous  n=,sum=,sum_squares=
      ratio       n=,num=,den=,num_squares=,den_squares=,cross=

    An expected loss is that of choosing the arm, in the metric's units. Lift is relative. Intervals are
    those of 95 %.
    """  # noqa: D301  # \b keeps the lines of a paragraph apart in the help
    from policies import comparison  # noqa: PLC0415  # scipy is slow to load
    from policies.totals import parse_totals  # noqa: PLC0415  # it loads scipy, too

    found = comparison.compare(
        kind,
        _parse("--champion", lambda: parse_totals(champion, "champion")),
        _parse("--challenger", lambda: parse_totals(challenger, "challenger")),
        better,
        _parse("--prior", lambda: comparison.parse_prior(prior)),
    )
    show(_answer(found), as_json, _draw)


def _parse(option: str, parse: Callable[[], _Parsed]) -> _Parsed:
    try:
        return parse()
    except BadSpec as error:
        raise typer.BadParameter(error.message, param_hint=f"'{option}'") from error


def _answer(found: Comparison) -> dict[str, Any]:
    return {
        "chance_to_beat": found.chance_to_beat,
        "expected_loss": {"champion": found.loss_champion, "challenger": found.loss_challenger},
        "lift": _interval(found.lift) if found.lift is not None else None,
        "champion": _interval(found.champion),
        "challenger": _interval(found.challenger),
    }


def _interval(found: Interval) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _draw(answer: dict[str, Any]) -> Iterator[RenderableType]:
    yield table(
        ["arm", "mean [95 % interval]", "expected loss if chosen"],
        [(arm, interval(answer[arm]), answer["expected_loss"][arm]) for arm in ("champion", "challenger")],
    )
    yield facts(
        {
            "chance that the challenger is better": percent(answer["chance_to_beat"]),
            "lift of the challenger": relative(answer["lift"]),
        }
    )
