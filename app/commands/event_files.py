"""What does a file of events, with one that declares its route, answer about other ways of choosing arms?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from app.candidates import Candidate, check_candidate, label_of, wire_of
from app.config import ConfigError, read_configuration
from app.control.api.history import unix_ms
from app.control.documents import BadDeclaration, parse_route
from app.control.off_policy import QuestionDocument, evaluation_view, question_of
from app.event_lines import Events, read_events
from app.event_logs import Extract, evidence_of
from policies.errors import BadSpec, CannotJudge
from policies.spec import RouteSpec

Document = dict[str, Any]


def judge(
    path: Path, asked: Mapping[str, Any], candidates: Sequence[Candidate], complete_ms: int | None
) -> tuple[dict[str, Document], dict[str, str]]:
    """The API's answer for each candidate, by its label, and why others are refused.

    `asked` is what the API would be asked, but that `route` is a file. All events before `complete_ms` are in
    the file.

    Raises:
        ConfigError: the file does not declare a route.
        BadEvents: lines that cannot be read.
        BadSpec: the route cannot have the reward, or too many folds are asked for.
    """
    spec = _spec(Path(asked["route"]))
    sound, refusals = _sorted_out(candidates, spec)
    if not sound:
        return {}, refusals
    document = QuestionDocument.model_validate({**asked, "route": spec.name, "policy": wire_of(sound[0])})
    question = replace(question_of(document, spec), candidates=tuple(sound))
    extract = Extract(
        most=document.most,
        from_ms=None if document.since is None else unix_ms("from", document.since),
        to_ms=None if document.to is None else unix_ms("to", document.to),
        complete_ms=complete_ms,
    )
    events = _read(path, spec)
    try:
        evidence, notes = evidence_of(events, question, extract)
    except CannotJudge as error:
        return {}, refusals | {label_of(candidate): _unjudged(error) for candidate in sound}
    answers: dict[str, Document] = {}
    for candidate in sound:
        try:
            found = question.judge(candidate, evidence)
        except CannotJudge as error:
            refusals[label_of(candidate)] = _unjudged(error)
        else:
            view = evaluation_view(question, candidate, evidence, found, notes)
            answers[label_of(candidate)] = view.model_dump(mode="json")
    return answers, refusals


def _unjudged(error: CannotJudge) -> str:
    """As the command line shows what the API says of it."""
    return f"{error}\n  policy cannot be judged: {error.reason}"


def _sorted_out(candidates: Sequence[Candidate], spec: RouteSpec) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates that the route can have, and why it cannot have the others."""
    sound: list[Candidate] = []
    refusals: dict[str, str] = {}
    for candidate in candidates:
        try:
            check_candidate(candidate, spec)
        except BadSpec as error:
            refusals[label_of(candidate)] = str(error)
        else:
            sound.append(candidate)
    return sound, refusals


def _spec(path: Path) -> RouteSpec:
    routes = read_configuration(path).routes
    if len(routes) != 1:
        raise ConfigError(f"{path} must declare one route, got {len(routes)}")
    try:
        return parse_route(routes[0])
    except BadDeclaration as error:
        raise ConfigError(f"{path}: {error}") from error


def _read(path: Path, spec: RouteSpec) -> Events:
    with path.open("rb") as stream, _progress(path) as advance:
        return read_events(stream, str(path), spec.metrics, advance)


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None]]:
    """A bar for the bytes that have been read: on a terminal, and gone at the end."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading events", total=path.stat().st_size)
        yield lambda size: bar.advance(task, size)
