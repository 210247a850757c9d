"""The command line: which commands there are, what each is called, and which exit code a failure has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.commands import (
    bandits,
    comparison,
    demo,
    history,
    keys,
    off_policy,
    overrides,
    rollouts,
    routes,
    serving,
    shadow,
)
from app.db.errors import DatabaseError
from app.settings import BadSettings
from policies.errors import PolicyError

PROGRAM = "kingmaker"


def main() -> None:
    """Run a command and leave with its exit code: 0 fine, 1 refused or failed, 2 usage."""
    os.umask(0o077)  # what is written, signing keys among it, is this user's alone
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are small: more would only take cores
    app(prog_name=PROGRAM)


class _Commands(TyperGroup):
    """A group whose commands fail with one message on stderr, instead of a trace, where they were refused."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _refusals() as error:
            typer.echo(f"{PROGRAM}: {error}", err=True)
            raise typer.Exit(1) from error


def _refusals() -> tuple[type[Exception], ...]:
    """What can be refused. Looked up when something was raised, as some of it is slow to load."""
    from app.client import ControlPlaneError  # noqa: PLC0415  # httpx is slow to load
    from app.config import ConfigError  # noqa: PLC0415  # and so is YAML

    return BadSettings, ConfigError, ControlPlaneError, DatabaseError, PolicyError


def _version(asked: bool) -> None:
    if asked:
        from app.version import IS_COMPILED, VERSION  # noqa: PLC0415  # the package's metadata takes a moment

        typer.echo(f"{PROGRAM} {VERSION}{' (compiled request path)' if IS_COMPILED else ''}")
        raise typer.Exit


app = typer.Typer(cls=_Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
_get = typer.Typer(no_args_is_help=True, help="Show routes, and what is going on in them.")
_bandit = typer.Typer(no_args_is_help=True, help="Act on what the bandit of a route has learnt.")
_override = typer.Typer(no_args_is_help=True, help="Pin requests to an arm, and ask which arm one would get.")
_keys = typer.Typer(no_args_is_help=True, help="Make, list and delete API keys, in the database itself.")


@app.callback()
def _kingmaker(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Put it in front of your models, register a challenger, report outcomes: it crowns the winner.

    Options may also come from KINGMAKER_* variables; a flag has precedence. Exit codes: 0 fine, 1 refused or
    failed, 2 usage.
    """


_COMMANDS: tuple[Callable[..., None], ...] = (
    serving.serve,
    serving.gateway,
    serving.control,
    serving.worker,
    serving.migrate,
    demo.demo,
    routes.apply,
    routes.export,
    rollouts.start,
    rollouts.promote,
    rollouts.rollback,
    rollouts.pause,
    rollouts.resume,
    rollouts.approve,
    rollouts.kill,
    history.timeline,
    comparison.compare,
    off_policy.evaluate_policy,
)
_GET: dict[str, Callable[..., None]] = {
    "routes": routes.get_routes,
    "route": routes.get_route,
    "rollout": rollouts.get_rollout,
    "evaluations": history.get_evaluations,
    "metrics": history.get_metrics,
    "champion": history.get_champion,
    "shadow": shadow.get_shadow,
    "bandit": bandits.get_bandit,
}
_BANDIT: dict[str, Callable[..., None]] = {
    "rebuild": bandits.rebuild,
}
_OVERRIDE: dict[str, Callable[..., None]] = {
    "add": overrides.add,
    "list": overrides.list_overrides,
    "remove": overrides.remove,
    "dry-run": overrides.dry_run,
}
_KEYS: dict[str, Callable[..., None]] = {
    "create": keys.create,
    "list": keys.list_keys,
    "delete": keys.delete,
}

for _command in _COMMANDS:
    app.command()(_command)
for _name, _command in _GET.items():
    _get.command(_name)(_command)
for _name, _command in _BANDIT.items():
    _bandit.command(_name)(_command)
for _name, _command in _OVERRIDE.items():
    _override.command(_name)(_command)
for _name, _command in _KEYS.items():
    _keys.command(_name)(_command)
app.add_typer(_get, name="get")
app.add_typer(_bandit, name="bandit")
app.add_typer(_override, name="override")
app.add_typer(_keys, name="keys")
