"""Certificates that change while the server runs: when new workers are due, and with which files they serve.

It reads files and decides; it knows no server, no thread and no signal. Time is an argument.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

_DAY_S: Final = 86_400
_TRY_AGAIN_AFTER_S: Final = 3600
_LONGEST_FILE: Final = 1_048_576


class TlsFiles(Struct, frozen=True):
    """A certificate chain and its key, both PEM."""

    cert: Path
    key: Path


class Renewal:
    """Notices that the files behind the served certificate have changed, and are whole.

    Files are compared by what is in them, and not by their times: a link that was turned to another file (certbot's
    ``live`` folder, the ``..data`` of a Kubernetes secret) need not make anything younger. What has just changed must
    be the same at the next look, because who writes a certificate and its key writes one before the other.

    Args:
        files: the certificate and key to look at; none where the server has no TLS.
        prepare: returns what new workers serve with at a time (Unix seconds), None without TLS; raises SettingsError
            while they could not start.
        now: Unix seconds.
        upkeep: called once a day with the time, for certificates that the server makes itself; may raise SettingsError.
        settled: called with the one certificate file that is in use, when all workers have been replaced.
    """

    def __init__(
        self,
        files: Sequence[Path],
        prepare: Callable[[int], TlsFiles | None],
        now: int,
        upkeep: Callable[[int], object] | None = None,
        settled: Callable[[Path], object] = lambda _: None,
    ) -> None:
        self.settled = settled
        self._files = files
        self._prepare = prepare
        self._upkeep = upkeep
        self._kept_up_at = now
        self._served = self._seen = self._read()
        self._refused = b""
        self._refused_at = now

    def due(self, now: int) -> bool:
        """Look once; return whether the files are others than those in use, at rest, and not refused already.

        What was refused is due again after an hour: a certificate may be for tomorrow.

        Raises:
            SettingsError: the daily upkeep failed.
        """
        if abs(now - self._kept_up_at) >= _DAY_S:  # by the wall clock, which goes on while a laptop sleeps
            self._kept_up_at = now
            if self._upkeep is not None:
                self._upkeep(now)
        before, self._seen = self._seen, self._read()
        if self._seen == self._served:
            self._refused = b""
            return False
        if self._seen == self._refused and abs(now - self._refused_at) < _TRY_AGAIN_AFTER_S:
            return False
        return self._seen == before

    def take(self, now: int, use: Callable[[TlsFiles], object]) -> None:
        """Prepare the files as they are and hand them to ``use``, which may refuse them, too.

        Raises:
            SettingsError: new workers could not start with them; told once, since they are not due again.
        """
        found = self._read()
        try:
            prepared = self._prepare(now)
            if prepared is not None:
                use(prepared)
        except Exception:
            self._refused, self._refused_at = found, now
            raise
        self._served = found

    def _read(self) -> bytes:
        """Return a digest of all that a check looks at: what is in the files, and who may read them."""
        digest = hashlib.sha256()
        for path in self._files:
            try:
                with path.open("rb") as file:
                    mode, content = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read(_LONGEST_FILE)
            except OSError as error:
                mode, content = 0, f"unreadable: {error.errno}".encode()
            digest.update(b"%d %d " % (mode, len(content)) + content)
        return digest.digest()
