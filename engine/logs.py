"""Logs on standard error: lines for people at a terminal, JSON for programs elsewhere.

Owns the format. Every process sets it up once. What must stay true: no secret and no token is ever
passed to a logger, and a text from outside is one JSON string or one `repr`, never a line of its own.
"""

import logging
import sys
import time

import orjson


class Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self.process,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.name != self.process:
            line["logger"] = record.name
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def open_log(process: str) -> logging.Logger:
    """The logger of this process. Warnings of libraries and of other modules go the same way, under its name."""
    handler = logging.StreamHandler(sys.stderr)
    line = f"%(asctime)s %(levelname)-7s {process:<10} %(message)s"
    handler.setFormatter(logging.Formatter(line) if sys.stderr.isatty() else Json(process))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    log = logging.getLogger(process)
    log.setLevel(logging.INFO)
    return log
