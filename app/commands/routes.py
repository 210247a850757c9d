"""What does a file change about routes, and which file would declare them as they are now?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.options import DEFAULT_SERVER, Json, Key, Route, Server
from app.commands.splits import share_of, split_line
from app.tables import cell, facts, table

if TYPE_CHECKING:
    from app.client import ControlPlane
    from app.config import Configuration

_STANDARD_INPUT = "-"


def apply(
    file: Annotated[
        str,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            show_default=False,
            help="Routes as YAML or JSON; - reads from standard input.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Set role and split as the file has them, even where a rollout has moved them.",
        ),
    ] = False,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Declare the routes of a file: all of them, or none.

    Role and split are initial values: where they have been moved since, they stay, unless --take-over.
    """
    documents = _read(file)
    with connect(server, key) as control:
        answers = [_declare(control, document, True, take_over) for document in documents]
        if not dry_run:
            answers = _declare_all(control, documents, take_over)
    show({"routes": answers}, as_json, _draw_applied)


def export(
    route: Annotated[
        str | None, typer.Argument(metavar="[ROUTE]", show_default=False, help="One route; by default all.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Print routes as a file for `apply`, with all defaults."""
    with connect(server, key) as control:
        found = [control.get("routes", route)] if route else control.get("routes")["routes"]
    content = found[0] if route else {"routes": found}
    typer.echo(json.dumps(content, indent=2) if as_json else _yaml(content))


def get_routes(server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False) -> None:
    """All routes."""
    with connect(server, key) as control:
        show(control.get("routes"), as_json, _draw_routes)


def get_route(route: Route, server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False) -> None:
    """One route: its arms, metrics and policy."""
    with connect(server, key) as control:
        show(control.get("routes", route), as_json, _draw_route)


def _read(file: str) -> list[dict[str, Any]]:
    from app.config import ConfigError, load_configuration  # noqa: PLC0415  # YAML is slow to load

    source = "standard input" if file == _STANDARD_INPUT else file
    try:
        text = sys.stdin.read() if file == _STANDARD_INPUT else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"file {source} cannot be read: {error}") from error
    configuration = load_configuration(text, source)
    documents = list(configuration.routes)
    _note_settings(source, configuration)
    for index, document in enumerate(documents):
        if problem := _problem(document, documents[:index]):
            raise ConfigError(f"{source}: routes.{index}{problem}")
    return documents


def _note_settings(source: str, configuration: Configuration) -> None:
    """Say on stderr that settings of processes are no matter of a running control plane."""
    settings = [name for name in ("gateway", "server") if getattr(configuration, name)]
    if settings:
        typer.echo(
            f"kingmaker: {source} also holds settings ({', '.join(settings)}), which apply leaves alone: "
            "processes read them when they start",
            err=True,
        )


def _problem(document: dict[str, Any], earlier: list[dict[str, Any]]) -> str | None:
    """What no server could take, or would only refuse once the earlier routes are applied."""
    name = document.get("route")
    if not isinstance(name, str) or not name:
        return f".route must be a name, got {name!r}"
    try:
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        return f" ({name}) must hold what JSON can say, so quote dates and the like: {error}"
    for other in earlier:
        if _declared_match(other) == _declared_match(document):
            return f".match must differ from that of route {other['route']!r}"
    return None


def _declared_match(document: dict[str, Any]) -> Any:
    """What a match comes to, however it is written. One of a wrong type is for the server to refuse."""
    from routing.snapshot import place_of  # noqa: PLC0415  # only a file of several routes needs it
    from routing.types import Match  # noqa: PLC0415  # with it

    match = document.get("match") or {"path_prefix": f"/r/{document['route']}"}
    if not isinstance(match, dict):
        return match
    prefix, host = match.get("path_prefix"), match.get("host")
    if isinstance(prefix, str | None) and isinstance(host, str | None):
        return place_of(Match(path_prefix=prefix, host=host))
    return match


def _declare(control: ControlPlane, document: dict[str, Any], dry_run: bool, take_over: bool) -> Any:
    from app.client import ControlPlaneError  # noqa: PLC0415  # loaded with the client

    try:
        return control.put(
            "routes",
            document["route"],
            body=document,
            dry_run="true" if dry_run else None,
            take_over="true" if take_over else None,
        )
    except ControlPlaneError as error:
        about = f"route {document['route']!r}: "
        message = str(error) if str(error).startswith(about) else f"{about}{error}"
        raise ControlPlaneError(message, error.status) from error


def _declare_all(control: ControlPlane, documents: list[dict[str, Any]], take_over: bool) -> list[Any]:
    """All in turn. Each has passed a dry run, so one that fails now says which ones are in force already."""
    from app.client import ControlPlaneError  # noqa: PLC0415  # loaded with the client

    answers: list[Any] = []
    for document in documents:
        try:
            answers.append(_declare(control, document, False, take_over))
        except ControlPlaneError as error:
            done = ", ".join(answer["route"] for answer in answers) or "none"
            message = f"{error}\n(applied before it: {done})"
            raise ControlPlaneError(message, error.status) from error
    return answers


def _draw_applied(answer: dict[str, Any]) -> Iterator[RenderableType]:
    if not answer["routes"]:
        yield "no routes"
    for applied in answer["routes"]:
        yield f"{applied['route']}: {_outcome(applied)}"
        if changes := applied["changes"]:
            rows = [
                (change["field"], _short(change["before"]), _short(change["after"])) for change in changes
            ]
            yield table(["field", "before", "after"], rows)
        if kept := applied["kept"]:
            rows = [(field["field"], _short(field["current"]), _short(field["declared"])) for field in kept]
            yield "kept, as it was moved after it was declared (--take-over sets it as declared):"
            yield table(["field", "kept", "declared"], rows)


def _outcome(applied: dict[str, Any]) -> str:
    if not applied["created"] and not applied["changes"]:
        return "unchanged"
    done = "created" if applied["created"] else "changed"
    return f"would be {done}" if applied["dry_run"] else done


def _short(value: Any) -> str:
    return cell(value) if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def _draw_routes(answer: dict[str, Any]) -> Iterator[RenderableType]:
    rows = [
        (route["route"], _champion(route), split_line(route["split"]), _goal(route), _match(route))
        for route in answer["routes"]
    ]
    yield table(["route", "champion", "split (bp)", "goal", "match"], rows) if rows else "no routes"


def _draw_route(route: dict[str, Any]) -> Iterator[RenderableType]:
    split = route["split"]
    yield facts(
        {
            "route": route["route"],
            "match": _match(route),
            "unit": _unit(route),
            "goal": _goal(route),
            "split": split_line(split),
        }
    )
    yield table(
        ["arm", "role", "share (bp)", "url", "labels"],
        [(arm["name"], _role(arm), share_of(split, arm), arm["url"], arm["labels"]) for arm in route["arms"]],
    )
    if route["metrics"]:
        fields = ["name", "kind", "better", "window", "aggregate", "missing"]
        rows = [[metric[field] for field in fields] for metric in route["metrics"]]
        yield table(["metric", *fields[1:]], rows)
    policy = {name: value for name, value in route["policy"].items() if name not in ("goal", "guardrails")}
    yield table(["policy", "value"], [(name, cell(value)) for name, value in policy.items()])
    yield table(
        ["guardrail", "max. increase", "confidence", "min. events"],
        [
            (guard["metric"], guard["max_relative_increase"], guard["confidence"], guard["min_events"])
            for guard in route["policy"]["guardrails"]
        ],
    )


def _champion(route: dict[str, Any]) -> str:
    return next(str(arm["name"]) for arm in route["arms"] if arm["role"] == "champion")


def _role(arm: dict[str, Any]) -> str:
    return f"shadow of {arm['sample']:.4g}" if arm["role"] == "shadow" else str(arm["role"])


def _goal(route: dict[str, Any]) -> str | None:
    goal = route["policy"].get("goal")
    return goal or next((metric["name"] for metric in route["metrics"]), None)


def _match(route: dict[str, Any]) -> str:
    match = route["match"]
    return f"{match.get('host', '')}{match.get('path_prefix', '')}"


def _unit(route: dict[str, Any]) -> str:
    return cell(route["unit"]) if "unit" in route else "each request"


def _yaml(content: Any) -> str:
    import yaml  # noqa: PLC0415  # slow to load, and only needed here

    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return str(text).rstrip("\n")
