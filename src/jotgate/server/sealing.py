"""The master key, and what it does: private keys are encrypted with it before they reach the database.

AES-256-GCM. Knows files, the operator's command and ciphertext; knows no database, and not what kind of key it seals.

Changing the key in the data folder survives a crash at any point, because at every moment all keys that a row can be
sealed under lie beside each other: ``master.key.next`` is written before the first row is sealed with it, and takes the
place of ``master.key`` after the commit; what was there before stays as ``master.key.previous`` until it is forgotten.
"""

import os
import secrets
import shlex
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.errors import MalformedToken, SettingsError
from jotgate.server.records import SealedKey
from jotgate.server.secret import Secret

FILE_NAME: Final = "master.key"
_NEXT_NAME: Final = "master.key.next"
_PREVIOUS_NAME: Final = "master.key.previous"
_COMMAND_WITHIN_S: Final = 30.0
_TIDY_WITHIN_S: Final = 1.0
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_LONGEST_TEXT: Final = 1024
_FORMAT: Final = b"\x01"  # first byte of everything sealed, so that the way of sealing can change one day


class MasterKey:
    """32 secret bytes that seal other keys, and further ones that open only. Never shown, never in the database."""

    __slots__ = ("_ciphers", "_reread", "_reread_to_seal")

    def __init__(
        self,
        raw: bytes,
        *others: bytes,
        reread: Callable[[], Sequence[bytes]] | None = None,
        reread_to_seal: bool = False,
    ) -> None:
        """`raw` seals and opens, `others` open only; `reread` gets all of them anew, in that order.

        Raises `SettingsError` unless each has 32 bytes.
        """
        self._ciphers = _ciphers((raw, *others))
        self._reread = reread
        self._reread_to_seal = reread_to_seal

    @classmethod
    def from_text(cls, text: str, where: str) -> "MasterKey":
        """The key from its text, 32 bytes in base64url. Raises `SettingsError` that names `where` it stood."""
        return cls(_parse(text, where))

    def seal(self, raw: bytes, *, purpose: str, kid: str) -> bytes:
        """Encrypt a key, bound to what it is for: moved to another row of the database, it does not open.

        A file is read again first: what is sealed under a key that was replaced meanwhile would be lost with it.
        Raises `SettingsError` when it cannot be read.
        """
        if self._reread is not None and self._reread_to_seal:
            self._ciphers = _ciphers(self._reread())
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._ciphers[0].encrypt(nonce, raw, _FORMAT + _context(purpose, kid))

    def unseal(self, sealed: bytes, *, purpose: str, kid: str, ask_again: bool = True) -> bytes:
        """Decrypt what `seal` made, under any of the keys; files and commands are asked again before giving up.

        Raises `SettingsError` for the wrong master key and for a changed ciphertext.
        """
        fault = (
            f"the master key does not open the {purpose} key {kid} in the database: "
            "it is not the one that the database was made with (or the row was changed)"
        )
        raw = _open(self._ciphers, sealed, purpose, kid)
        if raw is None and ask_again and self._reread is not None:
            try:
                self.read_again()
            except SettingsError as error:
                raise SettingsError((fault, *error.faults)) from None
            raw = _open(self._ciphers, sealed, purpose, kid)
        if raw is None:
            raise SettingsError((fault,))
        return raw

    @property
    def from_command(self) -> bool:
        """Whether to read the key again may take as long as the operator's command."""
        return self._reread is not None and not self._reread_to_seal

    def read_again(self) -> None:
        """Take what the file or the command gives now. Blocks. Raises `SettingsError`, as `MasterKeySource.load`."""
        if self._reread is not None:
            self._ciphers = _ciphers(self._reread())

    def __repr__(self) -> str:
        return "MasterKey(…)"


class MasterKeySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the master key comes from: of `text`, `file` and `command` at most one, else ``master.key`` in `data_dir`.

    All hold the same text: 32 bytes in base64url. `previous` opens what is sealed already, and seals nothing.
    """

    data_dir: Path
    text: Secret | None = None
    file: Path | None = None
    command: Secret | None = None
    previous: Secret | None = None
    command_within_s: float = _COMMAND_WITHIN_S

    def load(self, *, make: bool = True) -> MasterKey:
        """Read the key. Blocks: up to 30 s for a command.

        Only ``master.key`` in the data folder is ever made, and not without `make`: where there are keys already, only
        the right one opens them. Raises `SettingsError` for everything that is not such a text, for a file that others
        than its owner may read, and for a command that fails.
        """
        first, *others = self._read(make=make)
        if self.text is not None:
            return MasterKey(first, *others)
        return MasterKey(first, *others, reread=lambda: self._read(make=False), reread_to_seal=self.command is None)

    def begin_rewrap(self) -> MasterKey:
        """The master key that rows are to be sealed under anew: it opens whatever the present one opens.

        For the data folder it is a new one, which lies in ``master.key.next`` by then, or the one that is left there
        by a change that was cut off. The other sources are changed by their operator, and this is their present key.
        Raises `SettingsError` as `load` does.
        """
        if not self.in_data_dir:
            return self.load(make=False)
        self._read(make=False)  # nothing is made beside a key that cannot be used
        path = self.data_dir / _NEXT_NAME
        try:
            _create(path)
            following = _parse(_read_private(path), str(path))
        except OSError as error:
            raise SettingsError((f"the master key {path} cannot be made: {error.strerror}",)) from None
        return MasterKey(following, *self._read(make=False))

    def finish_rewrap(self, master: MasterKey) -> None:
        """Put the key that rows are sealed under now in its place, after their commit. Does nothing when it is done.

        `master` is what `begin_rewrap` returned. The key before it stays as ``master.key.previous``.
        Raises `SettingsError` when files cannot be written; it can be called again then.
        """
        if not self.in_data_dir:
            return
        path = self.data_dir / FILE_NAME
        following = self.data_dir / _NEXT_NAME
        try:
            text = _read_private(following)
            probe = master.seal(b"", purpose="probe", kid="")
            if _open(_ciphers((_parse(text, str(following)),)), probe, "probe", "") is None:
                return  # another change has begun, and finishes itself
            _replace(self.data_dir / _PREVIOUS_NAME, _read_private(path))
            following.replace(path)
            _sync_folder(self.data_dir)
        except FileNotFoundError:
            if not path.exists():
                raise SettingsError((_missing(path),)) from None
        except OSError as error:
            raise SettingsError((f"the master key {path} cannot be replaced: {error.strerror}",)) from None

    def forget_previous(self, rows: Iterable[SealedKey]) -> None:
        """Delete ``master.key.previous``. `rows` are all keys of the database.

        Raises `SettingsError`, and deletes nothing, unless the present key opens every one of them by itself.
        """
        if not self.in_data_dir:
            return
        path, previous = self.data_dir / FILE_NAME, self.data_dir / _PREVIOUS_NAME
        present = MasterKey(_read_key(path))
        for row in rows:
            if row.sealed:
                present.unseal(row.sealed, purpose=row.purpose, kid=row.kid)
        try:
            previous.unlink(missing_ok=True)
            _sync_folder(self.data_dir)
        except OSError as error:
            raise SettingsError((f"{previous} cannot be deleted: {error.strerror}",)) from None

    @property
    def in_data_dir(self) -> bool:
        """Whether it is the file that the first start makes."""
        return self.text is None and self.file is None and self.command is None

    def _read(self, *, make: bool) -> list[bytes]:
        """All keys, the one that seals first."""
        others: list[bytes] = []
        if self.text is not None:
            first = _parse(self.text.reveal(), "JOTGATE_MASTER_KEY")
        elif self.file is not None:
            first = _read_key(self.file)
        elif self.command is not None:
            first = _run(self.command.reveal(), self.command_within_s)
        else:
            # In this order, whatever is replaced meanwhile is met in its old place or in its new one.
            others += _read_if_there(self.data_dir / _NEXT_NAME)
            first = _read_key(self.data_dir / FILE_NAME, make=make)
            others += _read_if_there(self.data_dir / _PREVIOUS_NAME)
        if self.previous is not None:
            others.append(_parse(self.previous.reveal(), "JOTGATE_MASTER_KEY_PREVIOUS"))
        return [first, *others]


def rewrap(rows: Iterable[SealedKey], master: MasterKey) -> list[SealedKey]:
    """The same rows, in their order, sealed anew with `master`; rows without a private half stay as they are.

    Raises:
        SettingsError: `master` does not open one of them.
    """
    return [_rewrapped(row, master) if row.sealed else row for row in rows]


def _rewrapped(row: SealedKey, master: MasterKey) -> SealedKey:
    raw = master.unseal(row.sealed, purpose=row.purpose, kid=row.kid)
    return msgspec.structs.replace(row, sealed=master.seal(raw, purpose=row.purpose, kid=row.kid))


def command_faults(command: Secret) -> list[str]:
    """What is wrong with the text of a command, without running it and without repeating it."""
    try:
        words = shlex.split(command.reveal())
    except ValueError:
        return ["JOTGATE_MASTER_KEY_COMMAND cannot be split into words: a quotation mark is missing"]
    if not words or "\0" in command.reveal():
        return ["JOTGATE_MASTER_KEY_COMMAND must name a program"]
    if "=" in words[0]:
        # What stands there may be a secret, and would be told as the program's name.
        return [
            "JOTGATE_MASTER_KEY_COMMAND must begin with a program: it runs without a shell, which sets no variables"
        ]
    return []


def _ciphers(keys: Sequence[bytes]) -> tuple[AESGCM, ...]:
    for raw in keys:
        if len(raw) != _KEY_BYTES:
            raise SettingsError((f"the master key must have {_KEY_BYTES} bytes, not {len(raw)}",))
    return tuple(AESGCM(raw) for raw in keys)


def _open(ciphers: Sequence[AESGCM], sealed: bytes, purpose: str, kid: str) -> bytes | None:
    nonce, encrypted = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    for cipher in ciphers:
        try:
            return cipher.decrypt(nonce, encrypted, sealed[:1] + _context(purpose, kid))
        except (InvalidTag, ValueError):
            continue
    return None


def _context(purpose: str, kid: str) -> bytes:
    return b"\0".join((b"jotgate sealed key", purpose.encode(), kid.encode()))


def _parse(text: str, where: str) -> bytes:
    try:
        raw = decode_segment(text.strip())
    except MalformedToken:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise SettingsError((f"{where} must hold {_KEY_BYTES} bytes in base64url without padding (43 characters)",))
    return raw


def _read_private(path: Path) -> str:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if os.name == "posix" and mode & 0o077:
            fault = f"others may read the master key {path} (its mode is {mode:04o}): chmod 600 it"
            raise SettingsError((fault,))
        return file.read(_LONGEST_TEXT).decode("ascii", "replace")


def _missing(path: Path) -> str:
    if path.name == FILE_NAME:
        return f"the master key {path} is missing: put it back, or set JOTGATE_MASTER_KEY to what it held"
    return f"the master key {path} is missing: a file that is named is never made"


def _read_key(path: Path, *, make: bool = False) -> bytes:
    try:
        try:
            return _parse(_read_private(path), str(path))
        except FileNotFoundError:
            if not make:
                raise SettingsError((_missing(path),)) from None
            _create(path)
            return _parse(_read_private(path), str(path))
    except OSError as error:
        raise SettingsError((f"the master key {path} cannot be used: {error.strerror}",)) from None


def _read_if_there(path: Path) -> list[bytes]:
    try:
        return [_parse(_read_private(path), str(path))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError((f"the master key {path} cannot be used: {error.strerror}",)) from None


def _run(command: str, within_s: float) -> bytes:
    """The key that a command prints. Its output and its arguments may be secret: faults tell neither."""
    words = shlex.split(command)
    told = f"JOTGATE_MASTER_KEY_COMMAND: {words[0]}"
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command; it runs without a shell
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise SettingsError((f"{told} cannot be started: {error.strerror}",)) from None
    output: list[bytes] = []
    status: int | None = None

    def read() -> None:
        if process.stdout is not None:
            with process.stdout as stdout:
                output.append(stdout.read(_LONGEST_TEXT + 1))

    reader = threading.Thread(target=read, name="jotgate-master-key", daemon=True)
    reader.start()
    deadline = _Deadline(within_s)
    reader.join(deadline.left_s)
    in_time, too_long = bool(output), bool(output) and len(output[0]) > _LONGEST_TEXT
    if in_time and not too_long:
        try:
            status = process.wait(deadline.left_s)
        except subprocess.TimeoutExpired:
            in_time = False
    if status is None:
        _kill(process)
        process.wait()
        # What has left the command's process group may hold its output open for ever: the thread is left to it.
        reader.join(_TIDY_WITHIN_S)
    if too_long:
        raise SettingsError((f"{told} prints more than {_LONGEST_TEXT} bytes, which is no master key",))
    if not in_time:
        raise SettingsError((f"{told} has not ended within {within_s:g} s",))
    if status != 0:
        raise SettingsError((f"{told} ended with status {status}",))
    return _parse(output[0].decode("ascii", "replace"), f"what {words[0]} (JOTGATE_MASTER_KEY_COMMAND) prints")


class _Deadline:
    """Counts the seconds that are left, by the monotonic clock."""

    __slots__ = ("_ends_at",)

    def __init__(self, within_s: float) -> None:
        self._ends_at = time.monotonic() + within_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command that has not been waited for, and whatever it started: they hold its output open."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _draft(path: Path, text: str) -> Path:
    """Write a text, for its owner alone and to last, under a name of its own beside `path`."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink()
        raise
    return draft


def _create(path: Path) -> None:
    """Make the file whole or not at all, once: of processes that start together, the first one's key counts."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = _draft(path, encode_segment(secrets.token_bytes(_KEY_BYTES)) + "\n")
    try:
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_folder(path.parent)
    finally:
        draft.unlink()


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all, whatever is there."""
    draft = _draft(path, text)
    try:
        draft.replace(path)
        _sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut: keys sealed under a lost master key would be lost as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
