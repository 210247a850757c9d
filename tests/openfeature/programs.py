"""How are programs run that use a provider? In processes of their own, which say a line of JSON at a time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).parent
_SECONDS = 60
_NONE: Mapping[str, str] = MappingProxyType({})

Said = dict[str, Any]


class Program:
    """A running program."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def line(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            line = await self._process.stdout.readline()
        assert line, f"it has ended: {await self.ended()}"
        return line.decode().strip()

    async def said(self, wanted: Callable[[Said], object] = lambda said: True) -> Said:
        """The next thing that it says which is wanted; what comes before is passed over."""
        while True:
            said: Said = json.loads(await self.line())
            if wanted(said):
                return said

    async def tell(self, line: str) -> None:
        """Say a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def ended(self) -> tuple[int, str]:
        """Its exit code, once its input is closed, and what it complained of."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        async with asyncio.timeout(_SECONDS):
            complaints = (await self._process.stderr.read()).decode()
            return await self._process.wait(), complaints


class Programs:
    """A folder of JavaScript programs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, text: str) -> None:
        """A program, or a part of one."""
        (self._folder / name).write_text(text)

    @asynccontextmanager
    async def running(self, name: str, **variables: str) -> AsyncIterator[Program]:
        """A program of this folder while it runs; one of the tests' own is copied here first."""
        if (HERE / name).exists():
            shutil.copy(HERE / name, self._folder / name)
        async with running("node", name, folder=self._folder, variables=variables) as program:
            yield program


@asynccontextmanager
async def running(
    *command: str, folder: Path, variables: Mapping[str, str] = _NONE
) -> AsyncIterator[Program]:
    """A program while it runs."""
    environment = {"PATH": os.environ["PATH"], **variables}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
