"""Log lines as JSON objects, without anything a user sent: no history, no title, no query, no key, no address."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final

LOGGER: Final = logging.getLogger("recdistill.serve")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields given as ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Of an exception only its type and place are told: its message may quote a request."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name.startswith(("recdistill", "uvicorn")) else "other",
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            content["error"] = record.exc_info[0].__name__
            content["at"] = place_of(record.exc_info[1])
        return json.dumps(content, ensure_ascii=True)


def place_of(error: BaseException | None) -> str:
    """Return ``file:line`` where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else None
    return f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""


def log(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line."""
    LOGGER.log(level, event, extra={"fields": fields})


def configure(level: str = "info") -> None:
    """Send the lines of this package and of uvicorn to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("recdistill.serve", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
