"""The master key, and what it does: private keys are encrypted with it before they reach the database.

AES-256-GCM. Knows files and ciphertext; knows no database, and not what kind of key it seals.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.errors import MalformedToken, SettingsError

FILE_NAME: Final = "master.key"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = b"\x01"  # first byte of everything sealed, so that the way of sealing can change one day


class MasterKey:
    """32 secret bytes that seal other keys. Never shown, never in the database."""

    __slots__ = ("_cipher",)

    def __init__(self, raw: bytes) -> None:
        """Raises `SettingsError` unless `raw` has 32 bytes."""
        if len(raw) != _KEY_BYTES:
            raise SettingsError((f"the master key must have {_KEY_BYTES} bytes, not {len(raw)}",))
        self._cipher = AESGCM(raw)

    @classmethod
    def load(cls, data_dir: Path, env_value: str | None, *, make: bool = True) -> "MasterKey":
        """The key from `JOTGATE_MASTER_KEY` if that is set, else from `master.key`, which is made if it is not there.

        Both hold the same text: 32 bytes in base64url. Without `make` (there are keys already that only the right one
        opens) a missing file is an error, too. Raises `SettingsError` for anything else, and for a file that others
        than its owner may read.
        """
        if env_value is not None:
            return cls.from_text(env_value, "JOTGATE_MASTER_KEY")
        path = data_dir / FILE_NAME
        try:
            try:
                return cls(_parse(_read_private(path), str(path)))
            except FileNotFoundError:
                if not make:
                    fault = f"the master key {path} is missing: put it back, or set JOTGATE_MASTER_KEY to what it held"
                    raise SettingsError((fault,)) from None
                _create(path)
                return cls(_parse(_read_private(path), str(path)))
        except OSError as error:
            raise SettingsError((f"the master key {path} cannot be used: {error.strerror}",)) from None

    @classmethod
    def from_text(cls, text: str, where: str) -> "MasterKey":
        """The key from its text, 32 bytes in base64url. Raises `SettingsError` that names `where` it stood."""
        return cls(_parse(text, where))

    def seal(self, raw: bytes, *, purpose: str, kid: str) -> bytes:
        """Encrypt a key, bound to what it is for: moved to another row of the database, it does not open."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, raw, _FORMAT + _context(purpose, kid))

    def unseal(self, sealed: bytes, *, purpose: str, kid: str) -> bytes:
        """Decrypt what `seal` made. Raises `SettingsError` for the wrong master key and for a changed ciphertext."""
        nonce, encrypted = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, encrypted, sealed[:1] + _context(purpose, kid))
        except (InvalidTag, ValueError):
            fault = (
                f"the master key does not open the {purpose} key {kid} in the database: "
                "it is not the one that the database was made with (or the row was changed)"
            )
            raise SettingsError((fault,)) from None

    def __repr__(self) -> str:
        return "MasterKey(…)"


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
        return file.read(1024).decode("ascii", "replace")


def _create(path: Path) -> None:
    """Make the file whole or not at all, once: of processes that start together, the first one's key counts."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode_segment(secrets.token_bytes(_KEY_BYTES)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_folder(path.parent)
    finally:
        draft.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut: keys sealed under a lost master key would be lost as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
