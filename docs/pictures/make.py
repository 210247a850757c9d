"""Makes demo.svg here from a real run of the demonstration: `.venv/bin/python docs/pictures/make.py`."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from app.demo.printout import Printout
from app.demo.programs import Programs
from app.demo.story import perform

_PICTURE = Path(__file__).with_name("demo.svg")
_WIDTH = 96
_DAYS = 14
_SEED = 1
_FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_BLANK = "&#160;"
_CHARACTER_WIDTH = 12.2
_LEADING_BLANKS = re.compile(
    r'x="(?P<left>[0-9.]+)" y="(?P<top>[0-9.]+)" textLength="(?P<length>[0-9.]+)"'
    rf"(?P<rest>[^>]*>)(?P<blanks>(?:{_BLANK})+)(?=[^<])"
)


class _Picture(Printout):
    """The story from the trial on: what comes before is in the text around the picture."""

    def trial(self, champion: str, challenger: str, share: int) -> None:
        self.console.export_text(clear=True)
        super().trial(champion, challenger, share)


def main() -> None:
    """Play the story once and write the picture of it."""
    console = Console(
        file=io.StringIO(), record=True, width=_WIDTH, color_system="truecolor", highlight=False
    )
    with tempfile.TemporaryDirectory() as folder, Programs(Path(folder)) as programs:
        perform(_Picture(console), programs, Path(folder), days=_DAYS, seed=_SEED)
    picture = console.export_svg(
        title="kingmaker demo", theme=MONOKAI, code_format=_without_web_fonts(), unique_id="demo"
    )
    _PICTURE.write_text(_LEADING_BLANKS.sub(_moved, picture), "utf-8")
    print(f"written to {_PICTURE}")


def _moved(text: re.Match[str]) -> str:
    """A text without the blanks that it began with, as far to the right: some viewers drop them."""
    blanks = text["blanks"].count(_BLANK) * _CHARACTER_WIDTH
    left, length = float(text["left"]) + blanks, float(text["length"]) - blanks
    return f'x="{left:g}" y="{text["top"]}" textLength="{length:g}"{text["rest"]}'


def _without_web_fonts() -> str:
    """Rich's template with fonts of the reader's own, so that a picture asks nobody for anything."""
    local = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return re.sub(r"font-family: (?:Fira Code|arial)[^;]*;", f"font-family: {_FONTS};", local)


if __name__ == "__main__":
    main()
