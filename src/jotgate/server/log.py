"""One event a line on the standard logger ``jotgate``: ids and codes only, never tokens or passwords.

JSON for programs, or a form for people to read. The fields are named by hand at each call; whatever would look like a
secret is masked once more, however deep it lies and whichever the form. What an event carries cannot end its line or
steer a terminal: both forms are printable ASCII.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import structlog
from structlog.contextvars import get_contextvars

# A refresh or device token, a compact JWS, a bearer header: nothing of ours that a log has a use for.
_SECRETS: Final = re.compile(r"jg[rd]_[\w-]{8,}|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?|\$argon2\w*\$\S+|(?i:bearer)\s+\S+")
_MASK: Final = "[hidden]"
_DEEPEST: Final = 6
_BARE: Final = re.compile(r"[\w.:/@+-]{1,200}", re.ASCII)  # what the readable form shows without quotes
_REQUEST_ID: Final = "request_id"


def looks_secret(text: str) -> bool:
    """Whether the log would mask it, or a part of it."""
    return _SECRETS.search(text) is not None


def get_log(form: str = "auto") -> structlog.stdlib.BoundLogger:
    """Return the server's log. It writes through the standard logger, so that the host app decides where to.

    Args:
        form: ``json``, ``console``, or ``auto``: to read where a person's terminal is standard error.
    """
    console = form == "console" or (form == "auto" and _watched())
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger("jotgate"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_request_id,
            _for_people if console else _for_programs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    ).bind()  # once: what `wrap_logger` gives binds itself anew at every event
    return log


def _watched() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def _with_request_id(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say which request it was; what else a host app binds is the host's, and none of ours."""
    known = get_contextvars().get(_REQUEST_ID)
    if known is not None:
        event.setdefault(_REQUEST_ID, known)
    return event


def _for_programs(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    return _ascii(_plain(event))


def _for_people(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    fields = _plain(event)
    at, level, what = (fields.pop(name, "") for name in ("timestamp", "level", "event"))
    pairs = [f"{_shown(name)}={_shown(value)}" for name, value in fields.items()]
    return " ".join([_shown(at), f"{_shown(level):<8}", _shown(what), *pairs])


def _shown(value: object) -> str:
    return value if isinstance(value, str) and _BARE.fullmatch(value) else _ascii(value)


def _ascii(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)  # escapes all but what is printable in ASCII: CR, LF, ESC, DEL, C1


def _plain(value: Any, depth: int = 0) -> Any:  # noqa: ANN401  whatever is logged
    """Return the value as JSON knows it, without anything that looks like a secret."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {_masked(name): _plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple | AbstractSet) and depth < _DEEPEST:
        return [_plain(each, depth + 1) for each in value]
    return _masked(value)


def _masked(value: object) -> str:
    try:
        return _SECRETS.sub(_MASK, value if isinstance(value, str) else str(value))
    except Exception:  # noqa: BLE001  a value that cannot even be shown must not take the line with it
        return f"({type(value).__name__})"


def where(error: BaseException) -> str:
    """Return where an unexpected error came from, as ``module:line``: its message may hold what must not be told."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown"
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
