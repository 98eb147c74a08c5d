"""Log lines: structlog's and every library's through one formatter, to standard error.

What is bound in `structlog.contextvars` (request_id, worker) stands in every line written within that task or thread.
"""

import logging
import os
import re
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Libraries that at INFO speak of every connection they make.
_CHATTY = ("httpx", "httpcore", "urllib3", "filelock", "aiohttp.access", "huggingface_hub")
_CONTROL = re.compile(r"[^\n\t -~\u00a0-\U0010ffff]")


def configure(
    log_format: Literal["console", "json"],
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Write log lines to `stream` (standard error) from now on, for this whole process.

    console: for people, in colour on a terminal alone. json: an object a line, with timestamp (UTC), level, logger and
    event. level: the least that is written. Tracebacks show no local variables: those hold keys and pictures. Give
    uvicorn `log_config=None`.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.TimeStamper(fmt="iso", utc=log_format == "json"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream)
    handler.setLevel(level.upper())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _drop_uvicorn_colours],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _renderers(log_format: Literal["console", "json"], stream: TextIO) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    colours = stream.isatty() and "NO_COLOR" not in os.environ
    return [
        _escape,
        structlog.dev.ConsoleRenderer(
            colors=colours,
            exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False)
            if colours
            else structlog.dev.plain_traceback,
        ),
    ]


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Control characters as Python writes them: what a client sent must not steer the operator's terminal."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], value)
    return event


def _drop_uvicorn_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # uvicorn hands its message over twice, the second time with terminal codes in it.
    event.pop("color_message", None)
    return event
