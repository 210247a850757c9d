"""The demonstration's model endpoints, as processes of their own behind real HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.demo.dataset import Split, load
from app.demo.endpoint import READY
from app.demo.errors import DemoFailed
from app.demo.ledger import Decision
from app.demo.models import Name, decide, train
from app.demo.pages import write
from app.demo.programs import Program, Programs, python

SEED = 1


@pytest.fixture(scope="module")
def split() -> Split:
    """The pages of the tests."""
    return load(SEED)


@pytest.fixture
def programs(tmp_path: Path, split: Split) -> Iterator[Programs]:
    """Programs that are stopped at the end, and a file of pages to train on."""
    write(split.training, tmp_path / "training.json")
    with Programs(tmp_path) as programs:
        yield programs


def _start(programs: Programs, folder: Path, name: Name, *flags: str) -> str:
    told = ["--model", name, "--training", str(folder / "training.json"), "--seed", str(SEED), *flags]
    program = programs.start(name, python("app.demo.endpoint", *told))
    return asyncio.run(program.says(rf"{READY}(\S+)"))


def _fail_with_an_endpoint(folder: Path, started: list[Program]) -> None:
    with Programs(folder) as programs:
        _start(programs, folder, Name.LOGREG)
        started += programs.running
        assert started[0].process.poll() is None
        raise DemoFailed("the story")


def test_an_endpoint_answers_what_its_model_decides(programs: Programs, tmp_path: Path, split: Split) -> None:
    """A page goes in as JSON, and the decision that the model makes of it comes out."""
    url = _start(programs, tmp_path, Name.GBM)
    model = train(Name.GBM, split.training, SEED)
    with httpx.Client() as client:
        for page in split.live[:30]:
            answer = client.post(url, json=page.features)
            assert answer.status_code == 200
            assert Decision(answer.json()["decision"]) is decide(model.chance(page.features))
            assert answer.json()["model"] == "gbm-v2"


def test_an_endpoint_refuses_what_is_no_page(programs: Programs, tmp_path: Path) -> None:
    """A body that is not a row of numbers is the caller's mistake, not a decision."""
    url = _start(programs, tmp_path, Name.LOGREG)
    assert httpx.post(url, json={"https": "yes"}).status_code == 422
    assert httpx.post(url, content=b"{").status_code == 422


def test_a_broken_endpoint_fails_a_third_of_its_requests(
    programs: Programs, tmp_path: Path, split: Split
) -> None:
    """Of 60 requests exactly 20 are answered with an error."""
    url = _start(programs, tmp_path, Name.FOREST, "--fail-every", "3")
    with httpx.Client() as client:
        statuses = [client.post(url, json=page.features).status_code for page in split.live[:60]]
    assert (statuses.count(200), statuses.count(500)) == (40, 20)


def test_every_program_has_ended_afterwards(tmp_path: Path, split: Split) -> None:
    """On leaving, whatever was started is gone, even when the story failed."""
    write(split.training, tmp_path / "training.json")
    started: list[Program] = []
    with pytest.raises(DemoFailed, match="the story"):
        _fail_with_an_endpoint(tmp_path, started)
    assert [program.process.poll() is None for program in started] == [False]


def test_a_program_that_ends_early_shows_its_last_words(tmp_path: Path) -> None:
    """What a program said before it ended is what the reader is shown."""
    with Programs(tmp_path) as programs:
        program = programs.start("broken", python("app.demo.endpoint", "--model", "gpt"))
        with pytest.raises(DemoFailed, match="ended with code 2") as failed:
            asyncio.run(program.says(rf"{READY}(\S+)"))
    assert "invalid Name value: 'gpt'" in failed.value.log


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    """A broken installation is a failure of the demonstration, in words."""
    with Programs(tmp_path) as programs, pytest.raises(DemoFailed, match="server cannot be started"):
        programs.start("server", [str(tmp_path / "kingmaker")])


def test_no_setting_of_the_user_reaches_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KINGMAKER_DATABASE_URL that is meant for production is not what the demonstration writes to."""
    monkeypatch.setenv("KINGMAKER_DATABASE_URL", "postgresql://production/kingmaker")
    with Programs(tmp_path) as programs:
        program = programs.start("environment", ["env"])
        program.process.wait(10)
        assert "KINGMAKER" not in program.text()
