"""`kingmaker evaluate-policy`: candidates side by side, by a file or the control plane, and every refusal."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from app.control.examples import OFF_POLICY_EVALUATION
from app.control.off_policy import OffPolicyEvaluation
from routing.types import Reason
from tests.app.cli.programs import PROGRAM, Session, invoke
from tests.app.db.stage import HOUR_MS, START_MS
from tests.app.logged_world import SPEC, time_of, value, visits, write_files

ARMS = {"old": 1, "new": 2}
COMPLETE = ("--complete-until", time_of(START_MS + 10 * HOUR_MS))
NEW, EVENLY = ("--policy", "always:new"), ("--policy", "uniform")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags that name a route and its log."""
    return named(tmp_path_factory.mktemp("log"))


def named(folder: Path, n: int = 1_000, **how: Any) -> tuple[str, ...]:
    """Flags that name a route and a log of it, which are written."""
    route, events = write_files(folder, SPEC, visits(ARMS, n, units=n // 3, **how))
    return ("--route", route, "--events", events, *COMPLETE)


def evaluate(*arguments: str) -> Result:
    """The command, in this process."""
    return invoke("evaluate-policy", *arguments)


def document(*arguments: str) -> dict[str, Any]:
    """The document of a command that must succeed."""
    ran = evaluate(*arguments, "--json")
    assert (ran.exit_code, ran.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def refused(*arguments: str) -> str:
    """What is said by a command that must be refused, and print nothing."""
    ran = evaluate(*arguments)
    assert (ran.exit_code, ran.stdout) == (1, "")
    return ran.stderr


def test_candidates_stand_side_by_side(files: Sequence[str]) -> None:
    """What was earned first, then each candidate by each method; then which arms they choose."""
    ran = evaluate(*files, *NEW, *EVENLY, "--policy", "learned")
    assert (ran.exit_code, ran.stderr) == (0, "")
    about, values, arms = ran.stdout.split("\n\n")
    lines = [line.split(maxsplit=1) for line in about.splitlines()]
    assert [line[0] for line in lines] == ["route", "reward", "decisions", "from", "to", "left", "intervals"]
    assert lines[1][1] == "conversion (without an outcome 0)"
    assert lines[2][1].startswith("1000, of ")
    heading, logged, *rest = values.splitlines()
    assert heading.split()[:3] == ["policy", "method", "value"]
    assert logged.startswith("(as logged)")
    assert [line.split()[0] for line in rest] == [*["always:new"] * 4, *["uniform"] * 4, *["learned"] * 4]
    assert [line.split()[1] for line in rest[:4]] == ["doubly", "snips", "ips", "direct"]
    assert arms.split("\n")[0].split() == ["arm", "decisions", "logged", "always:new", "uniform", "learned"]
    assert arms.split("\n")[1].split()[4:8] == ["0.0", "%", "50.0", "%"]


def test_scripts_get_the_answers_of_the_api(files: Sequence[str]) -> None:
    """In the order of the candidates, each whole."""
    found = document(*files, *NEW, *EVENLY, "--reward", "conversion", "--level", "0.9", "--folds", "3")
    (new, even) = found["evaluations"]
    assert (list(found), found["refused"]) == (["evaluations", "refused"], [])
    assert OffPolicyEvaluation.model_validate(new).model_dump(mode="json") == new
    assert (new["policy"]["arm"], even["policy"]["kind"]) == ("new", "uniform")
    assert (new["level"], new["folds"], new["n"]) == (0.9, 3, 1_000)
    truth = value({"DE": 1, "FR": 1})
    for one in new["estimates"].values():
        assert abs(one["value"] - truth) < 4 * one["standard_error"]


def test_reward_span_number_and_clip_may_be_asked_for(files: Sequence[str]) -> None:
    """With the default of a decision without an outcome; more than the newest are said to be there."""
    (found,) = document(
        *files, *NEW, "--reward", "2 * revenue", "--default", "-1", "--from", time_of(START_MS + 100_000),
        "--to", time_of(START_MS + 599_000), "--most", "400", "--clip", "1.5",
    )["evaluations"]  # fmt: skip
    assert found["reward"] == {"expression": "2 * revenue", "default": -1.0}
    assert (found["n"], found["since"], found["clip"]) == (400, "2025-01-06T00:03:20Z", 1.5)
    assert found["warnings"][0] == "there are more decisions: of those asked for, the newest 400 were judged"
    shown = evaluate(*files, *NEW, "--clip", "1.5").stdout
    assert "warning: always:new: clipping at 1.5 met" in shown


def test_by_default_a_file_is_complete_up_to_its_latest_event(files: Sequence[str]) -> None:
    """So what could still have outcomes is left out, here everything."""
    said = refused(*files[:4], *NEW)
    assert "2 independent units are needed, got 0 in 0 decisions; left out: 1000 immature" in said
    assert said.endswith("policy cannot be judged: no_data\n")


def test_a_bandit_may_be_judged_by_a_file(tmp_path: Path) -> None:
    """Where the route declares one."""
    flags = named(tmp_path)
    route = Path(flags[1])
    declared = yaml.safe_load(route.read_text())
    declared["split"] = {"mode": "thompson", "reward": {"metric": "revenue"}}
    route.write_text(json.dumps(declared))
    (found,) = document(*flags, "--policy", "bandit")["evaluations"]
    assert (found["learned"], found["reward"]["expression"]) == ("out_of_fold", "revenue")


def test_one_that_cannot_be_judged_leaves_the_others(tmp_path: Path) -> None:
    """Exit code 1, the reason on stderr, the table of the rest on stdout; nothing if there is no rest."""
    flags = named(tmp_path, share={"DE": 0, "FR": 0})
    ran = evaluate(*flags, *NEW, "--policy", "always:old", "--policy", "weights:old=5000,new=5000", "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert [each["policy"]["arm"] for each in found["evaluations"]] == ["old"]
    assert found["refused"] == [
        {
            "policy": {"kind": "always", "arm": "new"},
            "reason": "no_support",
            "detail": "100.00% of the target's choices are of arm new, never logged",
        },
        {
            "policy": {"kind": "weights", "weights": {"old": 5_000, "new": 5_000}},
            "reason": "no_support",
            "detail": "50.00% of the target's choices are of arm new, never logged",
        },
    ]
    assert ran.stderr.splitlines() == [
        "kingmaker: always:new: 100.00% of the target's choices are of arm new, never logged",
        "  policy cannot be judged: no_support",
        "kingmaker: weights:old=5000,new=5000: 50.00% of the target's choices are of arm new, never logged",
        "  policy cannot be judged: no_support",
    ]
    assert refused(*flags, *NEW).count("no_support") == 1


def test_scripts_learn_of_refusals_alone(files: Sequence[str]) -> None:
    """A document also where nothing is left to judge: each policy, the word for why, and what was found."""
    ran = evaluate(*files[:4], *NEW, "--policy", "bandit", "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert found["evaluations"] == []
    assert [(each["policy"]["kind"], each["reason"]) for each in found["refused"]] == [
        ("bandit", "bad_question"),
        ("always", "no_data"),
    ]
    assert found["refused"][0]["detail"].startswith("policy.kind must not be bandit")
    assert found["refused"][1]["detail"].startswith("2 independent units are needed, got 0")


def test_a_reward_without_a_value_refuses_every_policy(files: Sequence[str]) -> None:
    """With its word, as by the API."""
    ran = evaluate(*files, *NEW, *EVENLY, "--reward", "revenue / cost", "--json")
    assert ran.exit_code == 1
    assert [each["reason"] for each in json.loads(ran.stdout)["refused"]] == ["no_reward", "no_reward"]
    assert ran.stderr.startswith("kingmaker: always:new and uniform: revenue / cost has no value for")


def test_one_that_the_route_cannot_have_leaves_the_others(files: Sequence[str]) -> None:
    """A bandit where weights divide, and an arm that there is not."""
    ran = evaluate(*files, "--policy", "bandit", *NEW, "--policy", "always:next", "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert [each["policy"]["arm"] for each in found["evaluations"]] == ["new"]
    assert [each["policy"]["kind"] for each in found["refused"]] == ["bandit", "always"]
    assert "policy.kind must not be bandit" in ran.stderr
    assert "always:next: policy.arm must be an arm of route 'ads'" in ran.stderr


def test_decisions_that_nobody_drew_are_left_out_with_why(tmp_path: Path) -> None:
    """Where one arm had everything there is nothing to judge by, and that is said."""
    said = refused(*named(tmp_path, reason=Reason.STATIC), *NEW)
    assert "left out: 1000 not_drawn (one arm had everything, as in STATIC decisions" in said


def test_a_reason_that_all_share_is_said_once(tmp_path: Path) -> None:
    """With all that it is about."""
    said = refused(*named(tmp_path, n=20), *NEW, *EVENLY, "--policy", "uniform")
    assert said.startswith("kingmaker: always:new: 50 effective samples are needed")
    said = refused(*named(tmp_path, n=3)[:4], *NEW, *EVENLY)
    assert said.startswith("kingmaker: always:new and uniform: 2 independent units are needed")


def test_lines_that_cannot_be_read_are_named(files: Sequence[str], tmp_path: Path) -> None:
    """File, line, field, bound and value."""
    bad = tmp_path / "bad.ndjson"
    bad.write_text(
        '{"type":"decision"}\n{"type":"outcome","decision":"d","metric":"clicks","value":1,"at":"now"}\n'
    )
    said = refused("--route", files[1], "--events", str(bad), *NEW)
    assert said.splitlines() == [
        f"kingmaker: {bad}: 2 lines cannot be read",
        "  line 1: arm is required",
        "  line 2: metric must be one that the route declares (conversion, revenue, cost), got 'clicks'",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("route: ads\n", "arms is required"),
        ("routes: []\n", "must declare one route, got 0"),
        ("routes: [{route: a}, {route: b}]\n", "must declare one route, got 2"),
        ("[1", "is not YAML"),
    ],
)
def test_the_route_must_be_declared(files: Sequence[str], tmp_path: Path, content: str, said: str) -> None:
    """By a file that holds it, and no other."""
    route = tmp_path / "route.yaml"
    route.write_text(content)
    assert said in refused("--route", str(route), *files[2:], *NEW)
    assert "cannot be read" in refused("--route", str(tmp_path / "none.yaml"), *files[2:], *NEW)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--policy", "always:next"),
            "policy.arm must be an arm of route 'ads' that answers callers (old, new)",
        ),
        (("--policy", "weights:old=9000"), "policy.weights cannot be: weights must sum to 10000, got 9000"),
        (("--policy", "bandit"), "policy.kind must not be bandit where weights divide the traffic"),
        ((*NEW, "--reward", "clicks"), "reward must name metrics of route 'ads'"),
        ((*NEW, "--reward", "cost -"), "reward must go on with a metric, a number or (, got 'its end'"),
        ((*NEW, "--reward", "revenue / cost"), "revenue / cost has no value for"),
    ],
)
def test_what_the_route_cannot_have_is_refused(
    files: Sequence[str], arguments: Sequence[str], said: str
) -> None:
    """Exit code 1, and nothing on stdout."""
    assert said in refused(*files, *arguments)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--policy", "sometimes"), "--policy"),
        ((), "--policy"),
        ((*NEW, "--level", "1"), "--level"),
        ((*NEW, "--clip", "0.5"), "--clip"),
        ((*NEW, "--folds", "1"), "--folds"),
        ((*NEW, "--most", "0"), "--most"),
        ((*NEW, "--from", "yesterday"), "--from"),
        ((*NEW, "--to", "2026-01-31T12:00:00"), "--to"),
        ((*NEW, "--complete-until", "soon"), "--complete-until"),
        ((*NEW, "--default", "1"), "--default"),
        ((*NEW, "--events", "none.ndjson"), "--events"),
    ],
)
def test_flags_that_cannot_be_read_are_usage_errors(
    files: Sequence[str], arguments: Sequence[str], option: str
) -> None:
    """Exit code 2, naming the flag."""
    ran = evaluate(*files, *arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert option in ran.stderr


def test_a_span_that_ends_before_it_begins_is_a_usage_error(files: Sequence[str]) -> None:
    """Both ends are named; a span of one moment is one."""
    first, last = time_of(START_MS + 2_000), time_of(START_MS + 1_000)
    ran = evaluate(*files, *NEW, "--from", first, "--to", last)
    assert (ran.exit_code, ran.stdout) == (2, "")
    words = " ".join(ran.stderr.split())
    assert f"'--from': must not be after --to, {last}, got {first}" in words
    assert "got 1 in 1 decisions" in refused(*files, *NEW, "--from", last, "--to", last)


def test_a_file_is_needed_to_say_when_it_is_complete() -> None:
    """And a route in any case: exit code 2."""
    ran = evaluate("--route", "ads", *NEW, *COMPLETE)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "pass --events" in ran.stderr
    assert evaluate(*NEW).exit_code == 2


def test_a_bar_is_shown_on_a_terminal_alone(files: Sequence[str]) -> None:
    """On stderr, while the events are read."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [PROGRAM, "evaluate-policy", *files, *NEW, "--json"],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    ) as running:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4_096):
                said += part
        except OSError:  # the other side is closed
            pass
        assert running.stdout is not None
        assert json.load(running.stdout)["evaluations"]
    os.close(ours)
    assert b"reading events" in said


@pytest.fixture
def asked() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A control plane that answers with the example of its description, and what it was asked."""
    bodies: list[dict[str, Any]] = []
    answer = OffPolicyEvaluation.model_validate(OFF_POLICY_EVALUATION).model_dump_json().encode()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append({"path": self.path, **body})
            is_refused = body["policy"]["kind"] == "uniform"
            sent = json.dumps(_REFUSAL).encode() if is_refused else answer
            self.send_response(422 if is_refused else 200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


_REFUSAL = {
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "arm new was never logged",
    "errors": [{"field": "policy", "message": "cannot be judged: no_support"}],
}


def test_the_control_plane_is_asked_about_each_candidate(asked: tuple[str, list[dict[str, Any]]]) -> None:
    """On the same terms, and up to the same decision; what it refuses leaves the others."""
    server, bodies = asked
    flags = (
        "--route",
        "ad-bidder",
        "--server",
        server,
        "--reward",
        "revenue",
        "--default",
        "2",
        "--clip",
        "9",
    )
    ran = evaluate(*flags, *EVENLY, "--policy", "weights:a=1,b=2", *NEW)
    assert ran.exit_code == 1
    assert ran.stderr == (
        "kingmaker: uniform: arm new was never logged\n  policy cannot be judged: no_support\n"
    )
    assert [body.pop("policy") for body in bodies] == [
        {"kind": "uniform"},
        {"kind": "weights", "weights": {"a": 1, "b": 2}},
        {"kind": "always", "arm": "new"},
    ]
    plain = {
        "path": "/v1/off-policy-evaluations",
        "route": "ad-bidder",
        "reward": {"expression": "revenue", "default": 2.0},
        "clip": 9.0,
        "level": 0.95,
        "folds": 5,
        "most": 100_000,
    }
    assert bodies == [plain, plain, {**plain, "to": OFF_POLICY_EVALUATION["until"]}]
    (row,) = [line for line in ran.stdout.splitlines() if line.startswith("(as logged)")]
    assert "0.02010 [0.01930, 0.02210]" in row
    assert "warning: always:new: there are more decisions" in ran.stdout


def test_the_real_control_plane_refuses_what_it_cannot_judge(kingmaker: Session, route: str) -> None:
    """A route without decisions; without a route it is not asked again."""
    said = kingmaker.refused("evaluate-policy", "--route", route, *NEW, *EVENLY)
    assert said.startswith("kingmaker: always:new and uniform: 2 independent units are needed, got 0")
    assert said.endswith("policy cannot be judged: no_data\n")
    assert "no route is named 'none'" in kingmaker.refused("evaluate-policy", "--route", "none", *NEW)
