"""One line of JSON an event on the standard logger ``jotgate``: ids and codes only, never tokens or passwords.

The fields are named by hand at each call, and whatever would look like a secret is masked once more here.
"""

import logging
import re
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

# A refresh or device token, a compact JWS, a bearer header: nothing of ours that a log has a use for.
_SECRETS: Final = re.compile(r"jg[rd]_[\w-]{8,}|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?|\$argon2\w*\$\S+|(?i:bearer)\s+\S+")
_MASK: Final = "[hidden]"


def _mask(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _SECRETS.sub(_MASK, value) if isinstance(value, str) else value for name, value in event.items()}


def get_log() -> structlog.stdlib.BoundLogger:
    """Return the server's log. It writes through the standard logger, so that the host app decides where to."""
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger("jotgate"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _mask,
            # JSON escapes CR, LF and control characters: one event stays one line.
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    ).bind()  # once: what `wrap_logger` gives binds itself anew at every event
    return log


def where(error: BaseException) -> str:
    """Return where an unexpected error came from, as ``module:line``: its message may hold what must not be told."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown"
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
