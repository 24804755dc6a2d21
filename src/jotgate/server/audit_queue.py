"""Lines of the audit trail about what has changed nothing: kept in memory for a moment, and written together.

A refusal costs its sender next to nothing, and must cost the database no more: of each kind so many lines a minute are
written, and the rest is counted and written as one. While the database is away they are kept, up to a bound. What has
changed something is no concern of this module: its line is written in the same transaction.
"""

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import fields

from jotgate.server.records import AuditEvent, AuditName, audit_detail
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.server.store import Store, StoreError

WRITE_EVERY_S: Final = 1.0
WINDOW_S: Final = 60.0
LINES_A_WINDOW: Final = 40
"""Of each name, and of those with and without a known account: who makes up addresses must not hide another's guesses
at an account that there is."""
LINES_AN_ACCOUNT: Final = 3
ACCOUNTS_A_WINDOW: Final = 200
"""Beyond these lines, so many accounts have so many lines of their own."""
CAPACITY: Final = 2_000
_BATCH: Final = 200
_LONGEST_VALUE: Final = 120

_Lane = tuple[AuditName, bool]


class AuditQueue:
    """The lines of one process.

    Args:
        settings: what is told of the server's settings, as `settings_picture` makes it; None tells nothing.
        clock: Unix time in seconds.
        monotonic: seconds that nobody sets.
    """

    def __init__(
        self,
        *,
        settings: dict[str, object] | None = None,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        self._guard = threading.Lock()  # event loops put, the follower's thread takes
        self._lines: deque[AuditEvent] = deque()
        self._written: Counter[_Lane] = Counter()
        self._omitted: Counter[_Lane] = Counter()
        self._of_account: Counter[tuple[AuditName, str]] = Counter()
        self._dropped = 0
        self._window_began = monotonic()

    def put(self, event: AuditEvent) -> None:
        """Have a line written soon. From any thread; neither waits nor fails."""
        with self._guard:
            self._begin_window()
            lane = event.event, bool(event.account_id)
            if self._written[lane] < LINES_A_WINDOW:
                self._written[lane] += 1
                self._keep(event)
            elif event.account_id and self._is_among_first(event):
                self._keep(event)
            else:
                self._omitted[lane] += 1

    def _is_among_first(self, event: AuditEvent) -> bool:
        """Whether there were few lines of the account: nobody's failures hide another's, as long as these are few."""
        account = event.event, event.account_id
        if account not in self._of_account and len(self._of_account) >= ACCOUNTS_A_WINDOW:
            return False
        self._of_account[account] += 1
        return self._of_account[account] <= LINES_AN_ACCOUNT

    async def write(self, store: Store, *, everything: bool = False) -> None:
        """Write what is there; with `everything`, at the end, also what would be counted for a while yet.

        What could not be written stays. A line may be there twice if the database did not say whether it took it.

        Raises:
            StoreError: it could not be written.
        """
        if self._settings is not None:
            settings, self._settings = self._settings, None
            try:
                await store.record_settings(partial(self._told_settings, settings))
            except StoreError:
                self._settings = settings
                raise
        with self._guard:
            self._begin_window(at_once=everything)
        while batch := self._next():
            await store.add_audit(batch)
            with self._guard:
                for _ in batch:
                    self._lines.popleft()
            if len(batch) < _BATCH:
                return

    def give_up(self) -> None:
        """Tell the log what is lost with this process."""
        with self._guard:
            self._dropped += len(self._lines) + self._omitted.total()
            self._lines.clear()
            self._omitted.clear()
            self._tell_dropped()

    def _next(self) -> list[AuditEvent]:
        with self._guard:
            return [self._lines[n] for n in range(min(len(self._lines), _BATCH))]

    def _begin_window(self, *, at_once: bool = False) -> None:
        now = self._monotonic()
        if not at_once and now - self._window_began < WINDOW_S:
            return
        for (name, known), count in self._omitted.items():
            told = audit_detail(omitted=count, known_accounts=known)
            self._keep(AuditEvent(at=self._clock(), event=name, actor="server", detail=told))
        self._omitted.clear()
        self._written.clear()
        self._of_account.clear()
        self._tell_dropped()
        self._window_began = now

    def _keep(self, event: AuditEvent) -> None:
        if len(self._lines) < CAPACITY:
            self._lines.append(event)
        else:
            self._dropped += 1

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._log.error("audit_dropped", count=self._dropped, reason="the database did not take them in time")
            self._dropped = 0

    def _told_settings(self, settings: dict[str, object], last: AuditEvent | None) -> AuditEvent | None:
        """Return what to write about the settings after the last line that was written about them."""
        before = _settings_in(last)
        if before == settings:
            return None
        changed = sorted(name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name))
        detail = audit_detail(changed=changed if before else [], settings=settings)
        return AuditEvent(at=self._clock(), event="settings_changed", actor="server", detail=detail)


def _settings_in(line: AuditEvent | None) -> dict[str, Any]:
    if line is None:
        return {}
    try:
        return dict(msgspec.json.decode(line.detail, type=dict[str, Any]).get("settings", {}))
    except (msgspec.MsgspecError, TypeError, ValueError):
        return {}


def settings_picture(settings: Settings) -> dict[str, object]:
    """Return what may be told of the settings: of secrets only whether they are set, and never anything made of them.

    Long values are cut; a hash of them stands for the rest, so that a change behind the cut is a change.
    """
    return {each.name: _shown(getattr(settings, each.name)) for each in fields(Settings)}


def _shown(value: object) -> object:
    if isinstance(value, Secret):
        return "(set)"
    if isinstance(value, tuple) and any(isinstance(each, Secret) for each in value):
        return f"({len(value)} set)"
    if value is None or isinstance(value, bool | int):
        return value
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode()  # a path may be any bytes
    if len(text) <= _LONGEST_VALUE:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[:_LONGEST_VALUE]}… ({len(text)} characters, SHA-256 {digest})"
