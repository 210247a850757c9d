"""What docs/openfeature.md shows is what happens: its programs run as they stand, at another URL."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from app.limits import limits_of_flags
from tests.app.product import Server, Totals, eventually
from tests.openfeature.programs import Program, Programs, running

PAGE = (Path(__file__).parents[2] / "docs/openfeature.md").read_text()
ARMS = ("logreg-v6", "gbm-v7")


def blocks(language: str, flag: str, server: Server) -> list[str]:
    """The page's blocks of a language, which evaluate this flag at this server."""
    found = blocks_of(language)
    return [
        text.replace("http://127.0.0.1:8080", server.gateway).replace("ad-bidder", flag) for text in found
    ]


def blocks_of(language: str) -> list[str]:
    """The page's blocks of a language, as they stand."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def converts(program: Program, server: Server, flag: str) -> None:
    """The program shows an arm, and that has one decision and one conversion in the books."""
    arm = await program.line()
    assert arm in ARMS
    wanted = {arm: Totals(1, 1, 1.0)}
    await eventually(partial(server.totals, flag), lambda totals: totals == wanted)


def recorded_contexts(server: Server) -> list[dict[str, object]]:
    """The contexts of all decisions that are recorded."""
    with closing(sqlite3.connect(server.data_dir / "kingmaker.db")) as connection:
        return [json.loads(row[0]) for row in connection.execute("SELECT features FROM contexts")]


async def test_the_lines_for_python_run(server: Server, tmp_path: Path) -> None:
    """A decision, and an outcome through the SDK's own tracking."""
    (tmp_path / "example.py").write_text("\n\n".join(blocks("python", "of-python", server)))
    async with running(sys.executable, "-W", "error", "example.py", folder=tmp_path) as program:
        await converts(program, server, "of-python")
        assert await program.ended() == (0, "")


async def test_the_lines_for_a_javascript_server_run(server: Server, programs: Programs) -> None:
    """A decision, and an outcome through the SDK's own tracking."""
    provider, program, _, _ = blocks("js", "of-server", server)
    programs.write("kingmaker.js", provider)
    programs.write("example.js", program)
    async with programs.running("example.js") as running_program:
        await converts(running_program, server, "of-server")
        assert await running_program.ended() == (0, "")


async def test_the_lines_for_a_page_run(server: Server, programs: Programs) -> None:
    """The flag that was used is a decision with an outcome, and the context in which it was evaluated; the
    others that were kept are nothing."""
    _, _, provider, program = blocks("js", "of-page", server)
    programs.write("kingmaker.js", provider)
    programs.write("example.js", program)
    async with programs.running("example.js") as page:
        await converts(page, server, "of-page")
    assert recorded_contexts(server) == [{"country": "DE"}]
    assert await server.totals("of-kept") == {}


async def test_a_default_has_no_outcome(server: Server, tmp_path: Path) -> None:
    """The same lines do no harm where there is no such flag."""
    (tmp_path / "example.py").write_text("\n\n".join(blocks("python", "unheard", server)))
    async with running(sys.executable, "-W", "error", "example.py", folder=tmp_path) as program:
        assert await program.line() == "logreg-v6"
        assert await program.ended() == (0, "")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ('client.track("conversion", user)', ""),
        ('client.track("clicks", user, TrackingEventDetails(1, {"decision": decision}))', "is not recorded"),
    ],
)
async def test_tracking_in_python_never_fails_the_application(
    server: Server, tmp_path: Path, call: str, complaint: str
) -> None:
    """Neither without details nor when the outcome is refused, which is logged."""
    provider, program = blocks("python", "sure", server)
    (tmp_path / "example.py").write_text(f"{provider}\n\n{program}\n{call}\nprint('on')\n")
    async with running(sys.executable, "-W", "error", "example.py", folder=tmp_path) as running_program:
        assert [await running_program.line() for _ in range(2)] == ["logreg-v6", "on"]
        code, complaints = await running_program.ended()
    assert (code, complaint in complaints, bool(complaints)) == (0, True, bool(complaint))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("client.track('conversion', user);", ""),
        ("new KingmakerProvider({ baseUrl: 'http://127.0.0.1:9' }).track('conversion', user, null);", ""),
        ("client.track('clicks', user, { decision: flag.flagMetadata.decision });", "clicks is not recorded"),
    ],
)
async def test_tracking_in_javascript_never_fails_the_application(
    server: Server, programs: Programs, call: str, complaint: str
) -> None:
    """As in Python."""
    provider, program, _, _ = blocks("js", "sure", server)
    programs.write("kingmaker.js", provider)
    programs.write("example.js", f"{program}\n{call}\nconsole.log('on');\n")
    async with programs.running("example.js") as running_program:
        assert [await running_program.line() for _ in range(2)] == ["logreg-v6", "on"]
        code, complaints = await running_program.ended()
    assert (code, complaint in complaints, bool(complaints)) == (0, True, bool(complaint))


async def test_tracking_on_a_page_needs_no_details(programs: Programs) -> None:
    """A provider that is called with none reports nothing where no flag was used."""
    provider = blocks_of("js")[2]
    programs.write("kingmaker.js", provider)
    call = "new KingmakerWebProvider({ baseUrl: 'http://127.0.0.1:9' }).track('conversion', {}, null);"
    programs.write(
        "example.js",
        f"import {{ KingmakerWebProvider }} from './kingmaker.js';\n{call}\nconsole.log('on');\n",
    )
    async with programs.running("example.js") as page:
        assert await page.line() == "on"
        assert (await page.ended())[0] == 0


def test_the_origins_shown_can_be_set() -> None:
    """The flag is one that is understood."""
    (line,) = re.findall(r"^```sh\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    program, command, flag, limit = shlex.split(line)
    assert (program, command, flag) == ("kingmaker", "serve", "--limit")
    assert limits_of_flags([limit]) == {"cors_origins": ("https://shop.example.com", "http://localhost:5173")}


def test_what_is_linked_is_there() -> None:
    """And what links here."""
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    assert "openfeature.md#from-a-web-page" in page
    assert "## From a web page" in PAGE
