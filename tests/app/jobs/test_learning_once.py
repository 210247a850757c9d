"""Every mature reward is learnt once, whoever learns, dies or is overtaken, whatever the order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
from sqlalchemy import select, update

from app.db import bandits, pending, tables
from app.db.errors import Conflict, DatabaseUnavailable
from app.db.pending import Waiting
from app.db.routes import StoredRoute
from app.db.session import Connection, Database
from app.db.timeline import Kind
from app.events.types import Event
from app.jobs.learn import LEARNER, REPAIR_MS, Learner
from policies.lessons import GRACE_MS, Knowledge
from routing.errors import BadModel
from routing.types import Reason
from tests.app.db.stage import DAY_MS, HOUR_MS, START_MS, put_route, timeline_of
from tests.app.events.facts import told
from tests.app.jobs.school import (
    COUNTRY,
    LATER_MS,
    bandit_spec,
    chosen,
    decide,
    decided,
    known,
    learn,
    log,
    open_school,
    rebuild,
    redeclare,
    rewards,
    version,
    waiting,
)
from tests.policies.knowledge import same


def some_events(random: Random, route: StoredRoute, twin: StoredRoute) -> list[tuple[int, list[Event]]]:
    """Decisions and outcomes over some days, each with when a spool had it: on a route, and on its twin."""
    found: list[tuple[int, list[Event]]] = []
    for _ in range(14):
        arm, at_ms = random.choice(("old", "new")), START_MS + random.randrange(3 * DAY_MS)
        reason = random.choice((Reason.BANDIT, Reason.BANDIT, Reason.SPLIT, Reason.OVERRIDE))
        both = [(one, chosen(one, arm, at_ms, reason=reason)) for one in (route, twin)]
        context = random.choice(({}, {"country": "DE"}, {"country": "FR"}, {"country": "US"}))
        considered = random.choice((None, 3_000))
        if random.random() < 0.8:
            recorded: list[Event] = [decided(one, c, context, considered_bp=considered) for one, c in both]
            found.append((at_ms + random.randrange(1_000), recorded))
        for _ in range(random.randrange(4)):
            value, key = random.uniform(-5, 5), random.choice(("", "x"))
            happened = random.randrange(HOUR_MS)
            received = happened + random.choice((0, 1_000, HOUR_MS + GRACE_MS))
            outcomes: list[Event] = [told(c, "profit", value, key, happened, received) for _, c in both]
            found.append((at_ms + received, outcomes))
    return found


async def test_whatever_the_order_the_same_is_learnt(database: Database) -> None:
    """Delayed, repeated and in any order, tokens before records, in large batches or small ones, and learnt
    at different times: in the end two learners know the same, and so does one who learns the log anew."""
    for seed in range(3):
        random = Random(seed)
        specs = [bandit_spec(f"{name}-{seed}", context=(COUNTRY,), discount=0.7) for name in ("one", "two")]
        one, two = [await open_school(database, spec) for spec in specs]
        events = some_events(random, one, two)
        for side, route in enumerate((one, two)):
            await go_through(database, Random(seed + 100 * side), [(at, each[side]) for at, each in events])
            await learn(database, START_MS + 9 * DAY_MS)
            assert await waiting(database, route) == Waiting(0, None)
        found = await known(database, one), await known(database, two)
        assert found[0].sums, seed
        assert same(shared(found[0], one), shared(found[1], two)), f"seed {seed}"
        await rebuild(database, one, START_MS + 9 * DAY_MS)
        await learn(database, START_MS + 9 * DAY_MS, batch=random.randrange(1, 9))
        assert same(await known(database, one), found[0]), f"seed {seed}"


async def go_through(database: Database, random: Random, events: list[tuple[int, Event]]) -> None:
    """Days of recording and learning: at each moment all that is older was recorded, in some order."""
    moments = sorted(START_MS + random.randrange(4 * DAY_MS) for _ in range(random.randrange(4)))
    for moment in (*moments, START_MS + 8 * DAY_MS):
        ready = [pair for pair in events if pair[0] < moment or random.random() < 0.2]
        events = [pair for pair in events if pair not in ready]
        repeated = random.choices(ready, k=len(ready) // 3)
        arrived = [event for _, event in [*ready, *repeated]]
        random.shuffle(arrived)
        while arrived:
            some = [arrived.pop() for _ in range(random.randint(1, len(arrived)))]
            await log(database, *some, spool=random.choice(("a" * 32, "b" * 32)))
        await learn(database, moment, batch=random.randrange(1, 9))


def shared(found: Knowledge, route: StoredRoute) -> Knowledge:
    """What is known, by the places of arms in their route."""
    names = {arm_id: place for place, arm_id in enumerate(sorted(route.arm_ids.values()))}
    return replace(found, sums={names[arm_id]: sums for arm_id, sums in found.sums.items()})


async def test_learners_at_once_learn_each_reward_once(database: Database) -> None:
    """Two of them, each with connections of its own, race through the same decisions."""
    route = await open_school(database)
    await decide(database, route, 60)
    await race(database, 4)
    assert await rewards(database, route) == {"new": (60, 60.0)}


async def race(database: Database, batch: int) -> None:
    """Three learners learn all that is due, at once."""
    other = Database(database.engine.url.render_as_string(hide_password=False))

    async def learn_on(mine: Database) -> None:
        for _ in range(200):
            try:
                await learn(mine, batch=batch)
            except Conflict:
                continue
            return

    await asyncio.gather(learn_on(database), learn_on(other), learn_on(other))
    await other.close()


class Held(Database):
    """A database that lets nobody begin to write before `go`, and says when somebody wants to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.go, self.wanted = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The same, later."""
        self.wanted.set()
        await self.go.wait()
        async with super().transaction() as connection:
            yield connection


@pytest.mark.parametrize("meanwhile", ["learnt", "rebuilt"])
async def test_a_learner_that_was_overtaken_writes_nothing(database: Database, meanwhile: str) -> None:
    """It has read decisions, and before it writes another one has learnt them, or all was begun anew."""
    route = await open_school(database)
    await decide(database, route, 5)
    held = Held(database.engine.url.render_as_string(hide_password=False))
    slow = asyncio.create_task(Learner(held).learn(route, LATER_MS, LATER_MS))
    await held.wanted.wait()
    if meanwhile == "learnt":
        await learn(database)
    else:
        await rebuild(database, route)
    held.go.set()
    with pytest.raises(Conflict):
        await slow
    await held.close()
    await learn(database)
    assert await rewards(database, route) == {"new": (5, 5.0)}


class Dying(Database):
    """A database whose connection breaks before a transaction is kept, so many times."""

    times = 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The same, or nothing."""
        async with super().transaction() as connection:
            yield connection
            if self.times > 0:
                self.times -= 1
                raise DatabaseUnavailable("the power is gone")


async def test_a_learner_that_dies_has_learnt_nothing(database: Database) -> None:
    """Whether it dies when it begins, in the middle of the decisions, or before it could tell gateways."""
    route = await put_route(database, bandit_spec())
    await decide(database, route, 6)
    dying = Dying(database.engine.url.render_as_string(hide_password=False))
    for _ in range(3):
        dying.times = 1
        with pytest.raises(DatabaseUnavailable):
            await learn(dying, batch=4)
        dying.times = 0
        learner = Learner(dying, 4)
        await learner.learn(route, LATER_MS, LATER_MS)
    await dying.close()
    assert await rewards(database, route) == {"new": (6, 6.0)}
    before = await version(database)
    await Learner(database).publish(LATER_MS)
    assert await version(database) == before + 1


class Counted(Dying):
    """A database that dies before every second transaction is kept, and counts how much one changes."""

    turn = 0
    most = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The same, counted."""
        self.turn += 1
        self.times = self.turn % 2
        async with super().transaction() as connection:
            before = await ids_that_wait(connection)
            yield connection
            after = await ids_that_wait(connection)
            self.most = max(self.most, len(before ^ after))


async def ids_that_wait(connection: Connection) -> set[str]:
    """The decisions that wait to be learnt."""
    return set((await connection.scalars(select(tables.bandit_pending.c.decision_id))).all())


async def test_a_long_log_is_laid_out_in_parts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four decisions in a transaction here. Whoever dies between two of them, and whatever is recorded
    meanwhile, newer or older than what is laid out already: each reward is learnt once."""
    monkeypatch.setattr(pending, "STEP_DECISIONS", 4)
    route = await open_school(database)
    for number in range(13):
        await log(database, decided(route, chosen(route, at_ms=START_MS + number // 3)))
    counted = Counted(database.engine.url.render_as_string(hide_password=False))
    await rebuild(database, route)
    learner, recorded = Learner(counted, batch=3), 13
    for number in range(200):
        if number % 2 and recorded < 19:
            at_ms = START_MS + (recorded * 7) % 11 - 4
            await log(database, decided(route, chosen(route, at_ms=at_ms)))
            recorded += 1
        try:
            if not await learner.learn(route, LATER_MS, LATER_MS):
                break
        except DatabaseUnavailable:
            learner = Learner(counted, batch=3)
    await counted.close()
    assert counted.most <= 4
    assert await rewards(database, route) == {"new": (19, 0.0)}
    assert await waiting(database, route) == Waiting(0, None)


async def test_nothing_is_learnt_until_all_is_laid_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was learnt already would be laid out once more. Only the newest are, however many parts."""
    monkeypatch.setattr(pending, "STEP_DECISIONS", 2)
    monkeypatch.setattr(pending, "REFILL_DECISIONS", 5)
    route = await open_school(database)
    for number in range(9):
        one = chosen(route, at_ms=START_MS + number)
        await log(database, decided(route, one), told(one, "profit", 10.0**number))
    await learn(database)
    await rebuild(database, route)
    learner = Learner(database)
    for laid_out in (4, 5):
        assert (await waiting(database, route)).decisions == laid_out - (2 if laid_out == 4 else 1)
        assert await learner.learn(route, LATER_MS, LATER_MS)
        assert await rewards(database, route) == {}
        assert (await waiting(database, route)).decisions == laid_out
    await learn(database)
    assert await rewards(database, route) == {"new": (5, 111_110_000.0)}


async def test_two_lay_a_log_out_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learners, each with connections of its own, who race through the parts and then the decisions."""
    monkeypatch.setattr(pending, "STEP_DECISIONS", 3)
    route = await open_school(database)
    await decide(database, route, 20)
    await learn(database)
    await rebuild(database, route)
    await race(database, 3)
    assert await rewards(database, route) == {"new": (20, 20.0)}


async def test_a_bandit_that_is_declared_again_while_it_is_forgotten_forgets_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is forgotten in parts, too: what of it is gone by then is laid out again with the rest."""
    monkeypatch.setattr(pending, "STEP_DECISIONS", 4)
    spec = bandit_spec()
    route = await open_school(database, spec)
    await decide(database, route, 5)
    await learn(database)
    await decide(database, route, 10)
    await redeclare(database, replace(spec, bandit=None))
    for left in (6, 2):
        await Learner(database).routes()
        assert (await waiting(database, route)).decisions == left
    route = await redeclare(database, spec)
    await learn(database)
    assert await rewards(database, route) == {"new": (15, 15.0)}
    await redeclare(database, replace(spec, bandit=None))
    await Learner(database).routes()
    async with database.read() as connection:
        assert await bandits.find_states(connection, [route.id]) == {}


async def test_a_place_in_the_log_that_is_damaged_is_looked_for_anew(sqlite: Database) -> None:
    """As anything else that is damaged."""
    route = await open_school(sqlite)
    await decide(sqlite, route, 3)
    async with sqlite.transaction() as connection:
        await connection.execute(update(tables.bandits).values(refill="[1]"))
    again_ms = LATER_MS + REPAIR_MS
    with pytest.raises(BadModel, match="refill must be a place in the log"):
        await Learner(sqlite).learn(route, again_ms, again_ms)
    await learn(sqlite, again_ms)
    assert await rewards(sqlite, route) == {"new": (3, 3.0)}


@pytest.mark.parametrize("stored", [b"", b"\x01" * 57, "nan", "indefinite"])
async def test_damaged_sums_are_learnt_anew_from_the_log(sqlite: Database, stored: bytes | str) -> None:
    """Cut off, of another version, not finite, or such as no rewards can have: they are not used, which is an
    error, and an entry on the timeline says that the log was learnt anew. Afterwards all is as before."""
    route = await open_school(sqlite)
    await decide(sqlite, route, 3, profit=2.0)
    await learn(sqlite)
    before = await known(sqlite, route)
    await damage(sqlite, route, stored)
    again_ms = LATER_MS + REPAIR_MS
    learner = Learner(sqlite)
    with pytest.raises(BadModel, match=f"sums of arm {route.arm_ids['new']} are damaged"):
        await learner.learn(route, again_ms, again_ms)
    await learn(sqlite, again_ms)
    assert same(await known(sqlite, route), before)
    entry = (await timeline_of(sqlite, route))[-1]
    assert (entry.kind, entry.actor) == (Kind.BANDIT_REBUILT, LEARNER)
    assert "damaged" in entry.reason


async def damage(database: Database, route: StoredRoute, stored: bytes | str) -> None:
    """Put other bytes in place of what was learnt of the challenger."""
    arm_id = route.arm_ids["new"]
    sums = (await known(database, route)).sums[arm_id]
    if stored == "nan":
        stored = replace(sums, y=float("nan")).to_bytes()
    elif stored == "indefinite":
        stored = replace(sums, yy=0.0).to_bytes()
    row = tables.bandit_arms.c.arm_id == arm_id
    async with database.transaction() as connection:
        await connection.execute(update(tables.bandit_arms).where(row).values(sums=stored))


async def test_what_is_damaged_again_at_once_is_left_alone(sqlite: Database) -> None:
    """For a minute: the timeline does not fill up with what a person must look after."""
    route = await open_school(sqlite)
    await decide(sqlite, route, 1)
    await learn(sqlite)
    for _ in range(3):
        await damage_apprentice(sqlite)
        with pytest.raises(BadModel, match="apprentice must be"):
            await Learner(sqlite).learn(route, LATER_MS + REPAIR_MS, LATER_MS + REPAIR_MS)
        await decide(sqlite, route, 1)
    kinds = [entry.kind for entry in await timeline_of(sqlite, route)]
    assert kinds == [Kind.ROUTE_CREATED, Kind.BANDIT_REBUILT]


async def damage_apprentice(database: Database) -> None:
    """Put something in place of an apprentice's totals."""
    async with database.transaction() as connection:
        await connection.execute(update(tables.bandits).values(apprentice="[]"))


async def test_what_is_known_is_looked_at_even_if_there_is_nothing_to_learn(sqlite: Database) -> None:
    """Every ten seconds, so that damage is found before somebody needs what is damaged."""
    route = await open_school(sqlite)
    await decide(sqlite, route, 1)
    learner = Learner(sqlite)
    await learner.learn(route, LATER_MS, LATER_MS)
    await damage(sqlite, route, b"")
    assert not await learner.learn(route, LATER_MS + 9_999, LATER_MS + 9_999)
    with pytest.raises(BadModel):
        await learner.learn(route, LATER_MS + 10_000, LATER_MS + 10_000)
