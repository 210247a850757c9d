"""How does a process say what happens to it? One JSON object a line on stderr, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import msgspec


class JsonLines(logging.Formatter):
    """Formats a record as {"at", "level", "event", …}; what is passed as `extra={"fields": {…}}` is added."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=repr).decode()
        except UnicodeEncodeError:
            # half characters, as in the name of a file that is not UTF-8, are escaped
            return json.dumps(line, default=repr)


def configure(level: int = logging.INFO) -> None:
    """Sends every record of this process, from `level` up, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("alembic", "httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
