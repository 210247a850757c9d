"""Is what the demonstration needs installed? Then it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.options import Json

_OF_THE_EXTRA = ("river", "sklearn")


def demo(
    days: Annotated[int, typer.Option(help="After how many short days a rollout gives up.")] = 14,
    seed: Annotated[int, typer.Option(help="What its traffic is drawn from.")] = 1,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave its servers running until Ctrl-C, and its data.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Watch a challenger earn its crown, and a broken one fail.

    It runs on real data, with servers and a folder of its own.
    """
    try:
        from app.demo.story import run  # noqa: PLC0415  # scikit-learn is slow to load, and an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        message = f'kingmaker: the demonstration needs {error.name}: pip install "kingmaker[demo]"'
        typer.echo(message, err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(run(days=days, seed=seed, keep=keep, json_output=as_json))
