"""Log lines: JSON for machines, colour for people, one line an event."""

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Final, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

LogFormat = Literal["auto", "json", "text"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def _is_not_a_cancelled_call(record: logging.LogRecord) -> bool:
    """gRPC reports every stream that is open when its server stops as an unhandled exception."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, asyncio.CancelledError)


def configure_logs(level: str = "info", style: LogFormat = "auto") -> None:
    """Send every log line to standard error.

    `auto` writes colour to a terminal and JSON elsewhere.
    """
    people = style == "text" or (style == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_a_cancelled_call)
    # Libraries that log by the standard module (grpc, asyncio) come through the same pipe.
    logging.basicConfig(
        level=max(LEVELS[level], logging.WARNING), format="%(name)s: %(message)s", stream=sys.stderr
    )
