"""The compiled request path: it is the same as the one in pure Python, to every test of it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
NEVER_DECODED = {"Assignment", "Decision", "Details"}


@pytest.mark.parametrize("module", MODULES)
def test_no_record_that_is_decoded_is_compiled(module: str) -> None:
    """Compiling leaves of an annotation its outermost type, by which msgspec would then check too little."""
    name = module.removesuffix(".py").replace("/", ".")
    records = {
        thing.__name__
        for thing in vars(import_module(name)).values()
        if isinstance(thing, type) and issubclass(thing, msgspec.Struct) and thing.__module__ == name
    }
    records |= {
        node.name
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases)
    }
    assert records <= NEVER_DECODED


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled gateway, and beside it the tests, which then import that one."""
    folder = tmp_path_factory.mktemp("compiled")
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    environment = {**os.environ, "KINGMAKER_COMPILED": "1"}
    ran = subprocess.run([*wheel, folder, ROOT], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    for name in ("tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.long
def test_a_compiled_installation_says_so(compiled: Path) -> None:
    """Each module that is to be compiled is; `kingmaker --version` tells."""
    for module in MODULES:
        assert list((compiled / module).parent.glob(f"{Path(module).stem}.*.so"))
    command = [sys.executable, "-c", "from app.cli import main; main()", "--version"]
    ran = subprocess.run(command, cwd=compiled, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith(" (compiled request path)\n")


@pytest.mark.long
def test_the_compiled_request_path_passes_the_tests_of_the_gateway(compiled: Path) -> None:
    """Its units, its exchanges over sockets, and the tables of attacks."""
    tests = ["tests/app/gateway", "tests/attacks", "tests/routing"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=compiled, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stdout[-5_000:] + ran.stderr[-2_000:]
    assert "passed" in ran.stdout
