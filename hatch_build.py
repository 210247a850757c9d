"""Compiles the request path into a wheel of its own for each machine, where KINGMAKER_COMPILED asks for it.

Without it the wheel is pure Python. The modules, listed in pyproject.toml, are the same files either way.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "KINGMAKER_COMPILED"
_FLAGS = ["-fno-semantic-interposition"]  # nobody replaces a function in it, so it may be inlined
_TOOLS = ["mypy>=1.18", "setuptools>=77"]


class CompiledRequestPath(BuildHookInterface[BuilderConfig]):
    """Puts extension modules beside their sources; Python prefers them."""

    def dependencies(self) -> list[str]:
        """What compiling needs; mypy also reads the types of what the modules import."""
        return [*_TOOLS, *self.metadata.core.dependencies] if _is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not _is_wanted():
            return
        self._folder = TemporaryDirectory()
        lib = Path(self._folder.name, "lib")
        built = _compiled(self.config["modules"], Path(self._folder.name), lib)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(lib)) for path in built})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if not build_data["pure_python"]:
            self._folder.cleanup()


def _is_wanted() -> bool:
    return os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no")


def _compiled(modules: list[str], folder: Path, lib: Path) -> list[Path]:
    """The extension modules, which lie under `lib` as in an installation; `folder` takes what else is made.

    Raises:
        SystemExit: mypy finds an error, or a module is missing.
        CompileError: there is no C compiler, or it fails.
    """
    from mypyc.build import mypycify  # noqa: PLC0415  # needed, and there, only where it is asked for
    from setuptools import Distribution  # noqa: PLC0415  # so is this

    # what these import may need packages that are not here: it is read for its types, not judged
    checked = ["--follow-imports=silent", *modules]
    extensions = mypycify(checked, opt_level="3", debug_level="0", target_dir=str(folder / "c"))
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *_FLAGS]
    build = Distribution({"name": "kingmaker", "ext_modules": extensions}).get_command_obj("build_ext")
    build.build_lib, build.build_temp = str(lib), str(folder / "temp")
    build.ensure_finalized()
    build.run()
    built = sorted(lib.rglob("*.so"))
    if len(built) < len(modules):
        raise SystemExit(f"{len(modules)} modules must have been compiled, got {len(built)}")
    return built
