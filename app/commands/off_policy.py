"""What would other ways of choosing arms have earned, side by side, by a route's log or a file of events?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.options import DEFAULT_SERVER, Json, Key, Server
from app.tables import facts, interval, moment, number, percent, table
from policies.errors import BadSpec

if TYPE_CHECKING:
    from app.candidates import Candidate

Document = dict[str, Any]

_METHODS = ("doubly_robust", "snips", "ips", "direct_method")
"""In the order in which people should read them."""

_JUDGED = "\n  policy cannot be judged: "
_BAD_QUESTION = "bad_question"

_Route = Annotated[
    str,
    typer.Option(
        "--route", metavar="NAME|FILE", help="The route's name; with --events, the file that declares it."
    ),
]
_Policies = Annotated[
    list[str],
    typer.Option(
        "--policy",
        metavar="POLICY",
        help="always:ARM, uniform, weights:ARM=BP,…, bandit, learned, learned:softmax=T; repeatable.",
    ),
]
_Events = Annotated[
    Path | None,
    typer.Option(
        "--events",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        show_default=False,
        help="Logged events, one a line; without a file the control plane is asked about its log.",
    ),
]
_Reward = Annotated[
    str | None,
    typer.Option(
        "--reward",
        metavar="EXPRESSION",
        show_default="the bandit's, else the policy's goal",
        help="What a decision is worth: a metric, or arithmetic over several.",
    ),
]
_Default = Annotated[
    float | None,
    typer.Option("--default", metavar="NUMBER", show_default="0", help="The reward without an outcome."),
]
_From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", show_default=False, help="Only decisions from then on."),
]
_To = Annotated[
    str | None, typer.Option("--to", metavar="TIME", show_default="now", help="Only up to then, included.")
]
_Complete = Annotated[
    str | None,
    typer.Option(
        "--complete-until",
        metavar="TIME",
        show_default="the latest event",
        help="Up to when the file holds all events; rewards that could come later are not mature.",
    ),
]
_Clip = Annotated[
    float | None,
    typer.Option(
        "--clip", metavar="NUMBER", min=1, show_default="none", help="The greatest weight of a decision."
    ),
]
_Level = Annotated[
    float, typer.Option("--level", metavar="NUMBER", min=0.5, max=0.999999, help="Of the intervals.")
]
_Folds = Annotated[int, typer.Option("--folds", metavar="N", min=2, max=100, help="For what is learned.")]
_Most = Annotated[
    int,
    typer.Option(
        "--most", metavar="N", min=1, max=500_000, help="How many decisions are judged, the newest."
    ),
]


def evaluate_policy(
    route: _Route,
    policy: _Policies,
    events: _Events = None,
    reward: _Reward = None,
    default: _Default = None,
    first: _From = None,
    last: _To = None,
    complete: _Complete = None,
    clip: _Clip = None,
    level: _Level = 0.95,
    folds: _Folds = 5,
    most: _Most = 100_000,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Judge by the log what other choices would have earned.

    Each policy is another way of choosing arms. Where the log cannot tell what it would have earned it is
    refused, with exit code 1, and the others are shown. With --json, `refused` says which, and why.
    """
    candidates = _candidates(policy)
    moments = {"--from": first, "--to": last, "--complete-until": complete}
    found = {option: _unix_ms(option, text) for option, text in moments.items() if text is not None}
    if "--from" in found and "--to" in found and found["--from"] > found["--to"]:
        raise typer.BadParameter(f"must not be after --to, {last}, got {first}", param_hint="'--from'")
    asked = {
        "route": route,
        "reward": _reward(reward, default),
        "from": first,
        "to": last,
        "clip": clip,
        "level": level,
        "folds": folds,
        "most": most,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if events is not None:
        from app.commands.event_files import judge  # noqa: PLC0415  # all that judging takes is slow to load

        answers, refusals = judge(events, given, candidates, found.get("--complete-until"))
    elif complete is not None:
        raise typer.BadParameter("is about a file: pass --events", param_hint="'--complete-until'")
    else:
        answers, refusals = _ask(server, key, given, candidates)
    if answers or as_json:
        document = {"evaluations": list(answers.values()), "refused": _refused(candidates, refusals)}
        show(document, as_json, lambda _: _draw(answers))
    _refuse(refusals)


def _candidates(texts: Sequence[str]) -> list[Candidate]:
    from app.candidates import parse_candidate  # noqa: PLC0415  # routing takes a moment to load

    try:
        return [parse_candidate(text) for text in texts]
    except BadSpec as error:
        raise typer.BadParameter(error.message, param_hint="'--policy'") from error


def _unix_ms(option: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        bound = "must be a time such as 2026-01-31T12:00:00Z"
        raise typer.BadParameter(f"{bound}, got {text!r}", param_hint=f"'{option}'") from error
    if at.tzinfo is None:
        raise typer.BadParameter(f"must carry its time zone, got {text!r}", param_hint=f"'{option}'")
    return round(at.timestamp() * 1000)


def _reward(expression: str | None, default: float | None) -> Document | None:
    if expression is not None:
        return {"expression": expression, "default": default or 0.0}
    if default is not None:
        raise typer.BadParameter("is that of a reward: pass --reward, too", param_hint="'--default'")
    return None


def _ask(
    server: str, key: str | None, asked: Document, candidates: Sequence[Candidate]
) -> tuple[dict[str, Document], dict[str, str]]:
    """The control plane's answers by candidate, all up to the same decision, and why others are refused."""
    from app.candidates import label_of, wire_of  # noqa: PLC0415  # see above
    from app.client import ControlPlaneError  # noqa: PLC0415  # httpx is slow to load

    answers: dict[str, Document] = {}
    refusals: dict[str, str] = {}
    with connect(server, key) as control:
        for candidate in candidates:
            body = {**asked, "policy": wire_of(candidate)}
            try:
                answer = control.post("off-policy-evaluations", body=body)
            except ControlPlaneError as error:
                if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                    raise
                refusals[label_of(candidate)] = str(error)
            else:
                answers[label_of(candidate)] = answer
                asked = {**asked, "to": answer["until"]}
    return answers, refusals


def _refused(candidates: Sequence[Candidate], refusals: Mapping[str, str]) -> list[Document]:
    """The candidates that are refused, each once, with the word for why, and what was found."""
    from app.candidates import label_of, wire_of  # noqa: PLC0415  # see above

    by_label = {label_of(candidate): wire_of(candidate) for candidate in candidates}
    return [{"policy": by_label[label], **_reason(text)} for label, text in refusals.items()]


def _reason(text: str) -> Document:
    """Without a word of its own, it is the question that cannot be."""
    detail, found, reason = text.partition(_JUDGED)
    return {"reason": reason if found else _BAD_QUESTION, "detail": detail}


def _refuse(refusals: Mapping[str, str]) -> None:
    """Say why candidates are refused, each reason once, and leave with 1 if there are any."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for label, reason in refusals.items():
        by_reason[reason].append(label)
    for reason, labels in by_reason.items():
        typer.echo(f"kingmaker: {' and '.join(labels)}: {reason}", err=True)
    if refusals:
        raise typer.Exit(1)


def _draw(answers: Mapping[str, Document]) -> Iterator[RenderableType]:
    some = next(iter(answers.values()))
    yield facts(_facts(some))
    headings = ["policy", "method", "value", "more than was logged", "effective samples"]
    yield table(headings, [_logged_row(some), *_rows(answers)])
    yield table(["arm", "decisions", "logged", *answers], _arm_rows(answers))
    for label, answer in answers.items():
        for warning in answer["warnings"]:
            yield f"warning: {label}: {warning}"


def _facts(answer: Document) -> dict[str, object]:
    reward = answer["reward"]
    return {
        "route": answer["route"],
        "reward": f"{reward['expression']} (without an outcome {number(reward['default'])})",
        "decisions": f"{answer['n']}, of {answer['units']} units",
        "from": moment(answer["since"]),
        "to": moment(answer["until"]),
        "left out": {why.replace("_", " "): n for why, n in answer["left_out"].items()},
        "intervals": percent(answer["level"]),
    }


def _logged_row(answer: Document) -> list[object]:
    logged = answer["logged"]
    return ["(as logged)", None, _interval(logged), None, round(logged["effective_samples"])]


def _rows(answers: Mapping[str, Document]) -> Iterator[list[object]]:
    for label, answer in answers.items():
        for method in _METHODS:
            found, apart = answer["estimates"][method], answer["differences"][method]
            effective = round(found["effective_samples"])
            yield [label, method.replace("_", " "), _interval(found), _interval(apart), effective]


def _arm_rows(answers: Mapping[str, Document]) -> Iterator[list[object]]:
    """How often each arm was chosen, and how often each candidate would have chosen it."""
    for reports in zip(*(answer["arms"] for answer in answers.values()), strict=True):
        logged = reports[0]
        shares = [percent(report["target_share"]) for report in reports]
        yield [logged["arm"], logged["decisions"], percent(logged["logged_share"]), *shares]


def _interval(found: Document) -> str | None:
    return interval({**found, "mean": found["value"]})
