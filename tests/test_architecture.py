"""The shape of the code: who may import whom, how long things may grow, which words are banned."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = ("routing", "policies")
PACKAGES = ("app", *PURE, "migrations")
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 50
BANNED_WORDS = {"helper", "helpers", "manager", "managers", "util", "utils"}
CLOCKS = {"now", "today", "utcnow"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, Function))


def _lines_without_docstring(function: Function) -> int:
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def _loaded_by(program: str) -> set[str]:
    """Names of the modules in memory after a fresh interpreter ran `program`."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def test_the_import_contracts_hold() -> None:
    """No import runs against the directions of the design; a failure shows the report of import-linter."""
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run(
        [linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_gateway_worker_loads_no_heavy_library() -> None:
    """The whole data plane brings in neither scipy.stats nor SQL nor what the control plane is made of."""
    modules = [
        _name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in [*_files("app/gateway"), ROOT / "app/events/spool.py"]
        if path.name != "__main__.py"
    ]
    loaded = _loaded_by("import " + ", ".join(modules))
    assert "app.gateway" in loaded
    assert not loaded & {
        "scipy.stats",
        "fastapi",
        "sqlalchemy",
        "pydantic",
        "uvicorn",
        "httpx",
        "app.db",
        "app.control",
    }


@pytest.mark.parametrize("path", _files(*PURE), ids=_name)
def test_pure_code_reads_no_clock(path: Path) -> None:
    """Time comes into the pure folders as an argument: nothing there asks what time it is."""
    called = {
        f"{node.attr} in line {node.lineno}"
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS
    }
    assert not called


@pytest.mark.parametrize("path", _files(*PACKAGES, "tests"), ids=_name)
def test_a_file_is_short(path: Path) -> None:
    """No file is longer than one can hold in mind."""
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", _files("app", *PURE), ids=_name)
def test_a_function_fits_a_screen(path: Path) -> None:
    """No function is longer than one screen, its docstring not counted. (A migration is a mere list.)"""
    lengths = {function.name: _lines_without_docstring(function) for function in _functions(path)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", _files(*PACKAGES, "tests"), ids=_name)
def test_a_file_is_named_after_a_noun_of_its_own(path: Path) -> None:
    """No file or folder is a drawer for whatever fits nowhere else."""
    words = {
        word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.lower().split("_")
    }
    assert not words & BANNED_WORDS
