"""What was acknowledged is on disk, once, under a number of its own, whatever happens to process or disk."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from app.events.spool import MAX_ROW_EVENTS, MAX_WAITING, Spool, SpoolError, mark_path
from app.events.spool_reader import acknowledge, read_batch, spool_id
from app.events.types import DecisionEvent, Event, OutcomeEvent
from tests.app.events.doomed import DECISIONS, outcome
from tests.app.events.facts import claims, made, write

ROOT = Path(__file__).parents[3]
EVERYTHING = 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a worker's spool is."""
    return tmp_path / "spools" / "w0.db"


def numbers(path: Path) -> list[int]:
    """The sequence numbers of the events that a spool holds: a row has that of its last one."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq, body FROM events ORDER BY seq").fetchall()
    return [number for seq, body in rows for number in range(seq - len(json.loads(body)) + 1, seq + 1)]


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, with a bound."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def events(path: Path) -> list[Event | None]:
    """All events, after a check that no number is missing."""
    batch = read_batch(path, 0, EVERYTHING)
    assert numbers(path) == list(range(1, len(batch.events) + 1))
    return list(batch.events)


def test_sequences_are_contiguous_over_restarts(path: Path) -> None:
    """Each run goes on where the last one stopped, in the order of writing."""
    written = [made(claims(number)) for number in range(20)]
    for start in range(0, 20, 5):
        write(path, *written[start : start + 5])
    assert events(path) == written


def test_numbers_are_not_used_again_when_everything_was_deleted(path: Path) -> None:
    """A spool that was swept empty remembers its last number over a restart."""
    write(path, *(made(claims(number)) for number in range(5)))
    acknowledge(path, spool_id(path), 5)
    spool = Spool(path)
    until(lambda: numbers(path) == [])
    spool.close()
    write(path, made(claims(9)))
    assert numbers(path) == [6]


def test_a_row_holds_only_so_many_events(path: Path) -> None:
    """What is written together goes into several rows then, and comes back in order."""
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    spool = Spool(path)
    sent = [outcome(number) for number in range(2 * MAX_ROW_EVENTS + 1)]
    spool.commit(sent, answers.put)
    assert answers.get(timeout=10) is None
    spool.close()
    assert events(path) == sent
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq FROM events ORDER BY seq").fetchall()
    assert rows == [(MAX_ROW_EVENTS,), (2 * MAX_ROW_EVENTS,), (2 * MAX_ROW_EVENTS + 1,)]


def test_an_outcome_is_on_disk_when_it_is_acknowledged(path: Path) -> None:
    """At the moment of the acknowledgement, another process can read it."""
    spool = Spool(path)
    seen: SimpleQueue[int | SpoolError] = SimpleQueue()
    for count in range(1, 20):
        spool.commit([outcome(count)], lambda error: seen.put(error or len(numbers(path))))
        assert seen.get(timeout=10) == count
    spool.close()


def test_outcomes_of_one_request_are_kept_together(path: Path) -> None:
    """One acknowledgement for all of them, which follow one another."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    sent = [outcome(number) for number in range(50)]
    spool.commit(sent, answers.put)
    assert answers.get(timeout=10) is None
    assert answers.empty()
    spool.close()
    assert events(path) == sent


def test_closing_writes_what_waits(path: Path) -> None:
    """A worker that ends in peace loses nothing."""
    spool = Spool(path)
    written = [made(claims(number)) for number in range(1_000)]
    for event in written:
        spool.append(event)
    spool.close()
    assert (spool.waiting, spool.dropped) == (0, 0)
    assert events(path) == written


def test_many_threads_may_write(path: Path) -> None:
    """Each event once, each outcome acknowledged once, and no number twice."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()

    def work(worker: int) -> None:
        for number in range(worker * 1_000, worker * 1_000 + 200):
            spool.append(made(claims(number)))
            spool.commit([outcome(number)], answers.put)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answers.get(timeout=10) for _ in range(800)} == {None}
    spool.close()
    found = Counter((type(event), event.decision.nonce) for event in events(path) if event is not None)
    assert len(found) == 1_600
    assert set(found.values()) == {1}


def test_a_worker_that_takes_over_may_meet_the_one_before(path: Path) -> None:
    """Two spools that are open on one file give no number twice and leave none out."""
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    spools = [Spool(path), Spool(path)]
    for number in range(100):
        for spool in spools:
            spool.append(made(claims(number)))
            spool.commit([outcome(number)], answers.put)
    assert {answers.get(timeout=10) for _ in range(200)} == {None}
    for spool in spools:
        spool.close()
        assert spool.dropped == 0
    found = Counter((type(event), event.decision.nonce) for event in events(path) if event is not None)
    assert found == {(kind, number): 2 for kind in (DecisionEvent, OutcomeEvent) for number in range(100)}


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("acknowledged", [1, 50, 400])
def test_what_was_acknowledged_is_there_after_a_kill(path: Path, acknowledged: int, reboot: bool) -> None:
    """A worker is killed with SIGKILL while it writes: every acknowledged outcome is there, once, in order.

    A reboot also takes the memory that processes share to read the file.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.app.events.doomed", "for_ever", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(acknowledged)]
    child.kill()
    told += [line for line in child.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    if reboot:
        path.with_name("w0.db-shm").unlink()
    kept = [event.value for event in events(path) if isinstance(event, OutcomeEvent)]
    assert kept == list(range(len(kept)))
    assert [float(line) for line in told] == kept[: len(told)]
    count = len(events(path))
    write(path, made(claims(1)))
    assert len(events(path)) == count + 1


def test_a_full_disk_refuses_outcomes_and_counts_decisions(path: Path) -> None:
    """Nothing raises, nothing is half written, numbers stay contiguous, and with room again all goes on.

    The process may not write files beyond a size, which is what a full disk looks like to it.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "tests.app.events.doomed", "full_disk", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert all("w0.db could not take" in refused for refused in report["refused"])
    assert report["after"] is None
    kept = [event.value for event in events(path) if isinstance(event, OutcomeEvent)]
    assert 0 < report["dropped"] == DECISIONS - (len(events(path)) - len(kept))
    assert report["durable"] > 10
    assert kept == [float(number) for number in range(report["durable"] + 1) for _ in range(10)]


def test_a_closed_spool_refuses_outcomes_and_counts_decisions(path: Path) -> None:
    """Nobody waits for an answer that never comes, and no loss goes unseen."""
    spool = Spool(path)
    spool.close()
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    spool.append(made(claims(1)))
    spool.commit([outcome(1)], answers.put)
    assert isinstance(answers.get(block=False), SpoolError)
    assert (spool.dropped, spool.waiting) == (1, 0)
    spool.close()
    assert events(path) == []


def test_a_disk_that_hangs_fills_no_memory(path: Path) -> None:
    """Beyond a bound of what may wait, decisions are dropped and counted, and outcomes refused at once."""
    spool = Spool(path)
    hanging, going_on = threading.Event(), threading.Event()

    def hang(_: SpoolError | None) -> None:
        hanging.set()
        going_on.wait(10)

    spool.commit([outcome(1)], hang)
    assert hanging.wait(10)
    event = made(claims(1))
    for _ in range(MAX_WAITING + 3):
        spool.append(event)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    spool.commit([outcome(2)], answers.put)
    assert isinstance(answers.get(block=False), SpoolError)
    assert (spool.dropped, spool.waiting) == (3, MAX_WAITING)
    spool._events.clear()
    going_on.set()
    spool.close()
    assert events(path) == [outcome(1)]


def test_an_event_that_cannot_be_written_is_an_error_and_not_the_end(path: Path) -> None:
    """Its group is refused whole; the writer goes on with the next."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    broken = OutcomeEvent(decision=claims(1), metric="\ud800", value=1.0, at_ms=1, received_at_ms=1, key="")
    spool.commit([outcome(1), broken], answers.put)
    assert isinstance(answers.get(timeout=10), SpoolError)
    spool.commit([outcome(2)], answers.put)
    assert answers.get(timeout=10) is None
    spool.close()
    assert events(path) == [outcome(2)]


def garbled(path: Path) -> None:
    """A mark that cannot be read."""
    mark_path(path).write_bytes(b"\0" * 40)


def another(path: Path) -> None:
    """The mark that an earlier spool left under this name."""
    mark_path(path).write_text(f"{'0' * 32} 1000")


def lower(path: Path) -> None:
    """A mark in the middle, within a row."""
    acknowledge(path, spool_id(path), 7)


@pytest.mark.parametrize(("mark", "left"), [(None, 20), (garbled, 20), (another, 20), (lower, 15)])
def test_only_what_lies_below_the_mark_is_deleted(
    path: Path, mark: Callable[[Path], None] | None, left: int
) -> None:
    """A mark that is missing, unreadable or another spool's deletes nothing; rows are deleted whole."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    for start in range(0, 20, 5):
        spool.commit([outcome(number) for number in range(start, start + 5)], answers.put)
        assert answers.get(timeout=10) is None
    spool.close()
    if mark is not None:
        mark(path)
    spool = Spool(path)
    started = spool._swept_at
    until(lambda: spool._swept_at > started)
    spool.close()
    assert numbers(path) == list(range(21 - left, 21))


def test_a_spool_that_cannot_be_opened_is_said(path: Path) -> None:
    """When it is opened, before the first request."""
    path.mkdir(parents=True)
    with pytest.raises(SpoolError, match=r"cannot open spool .*w0\.db"):
        Spool(path)
