"""Which version of Kingmaker this is, and whether its request path is compiled."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from app.gateway import heads

VERSION = version("kingmaker")
IS_COMPILED = Path(heads.__file__).suffix != ".py"
