"""Password hashing by Argon2id, in a bounded pool of niced threads: the event loop never waits for a hash.

An unknown account costs what a known one costs: its password is checked against a hash made with the current
parameters, which no password fits. So is one whose row holds no hash, or one that would cost too much to check.

An account that came from another program has that one's hash until its first login, which makes another of it. Until
then its logins take another time than those of unknown accounts: that tells that it exists, and was brought along.
Passwords arrive here in NFC: one that another program hashed as it was typed, in another form, does not fit any more.
"""

import asyncio
import hashlib
import os
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import bcrypt
from argon2 import PasswordHasher, Type
from argon2.exceptions import HashingError, InvalidHashError, VerificationError
from argon2.low_level import error_to_str
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from jotgate.server.refusals import Busy
from jotgate.server.rules import foreign_hashes
from jotgate.server.rules.foreign_hashes import Foreign, read_foreign
from jotgate.server.rules.hashing import ARGON2_SETS, Argon2, is_checkable, stored_parameters

# At about 25 ms a hash, the last one in a full queue is answered after a second and a half.
_QUEUED_PER_WORKER: Final = 64
_NICE: Final = 10
_BCRYPT_TAKES_BYTES: Final = 72  # and has never looked at more, so that programs hashed no more
_DIGESTS: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha512": hashes.SHA512,
}
_NO_MEMORY: Final = error_to_str(-22)  # ARGON2_MEMORY_ALLOCATION_ERROR, told by its sentence alone

_T = TypeVar("_T")


class Passwords:
    """Hashes and checks passwords off the event loop.

    Args:
        workers: threads that hash at the same time.
        argon2: what a new hash costs.
        salt: gives the random bytes of a salt; the default is the system's generator.
    """

    def __init__(
        self, workers: int, argon2: Argon2 = ARGON2_SETS[0], *, salt: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._argon2 = argon2
        self._hasher = PasswordHasher(
            time_cost=argon2.passes,
            memory_cost=argon2.memory_kib,
            parallelism=argon2.lanes,
            type=Type.ID,
            hash_len=32,
            salt_len=16,
        )
        self._salt = salt
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="jotgate-argon2", initializer=_yield_to_requests)
        self._most = workers * (1 + _QUEUED_PER_WORKER)
        self._places = threading.BoundedSemaphore(self._most)
        self._under_way: set[Future[Any]] = set()
        # Made at start, not at the first unknown account: that one would be slower than the rest.
        self._decoy = self._hash(salt(32).hex())

    async def hash(self, password: str) -> str:
        """Return the PHC string of a normalised password.

        Raises:
            Busy: when the queue is full, or there is no memory for it.
        """
        return await self._run(partial(self._hash, password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Tell whether the password fits; False, after a hash's work, where there is none that may be checked.

        Raises:
            Busy: when the queue is full.
        """
        checked = password_hash if password_hash is not None and self.is_usable(password_hash) else None
        fits = await self._run(partial(self._verify, checked or self._decoy, password))
        return fits and checked is not None

    def is_usable(self, password_hash: str) -> bool:
        """Whether a stored hash is one that may be checked."""
        return is_checkable(password_hash) or read_foreign(password_hash) is not None

    def is_current(self, password_hash: str) -> bool:
        """Whether a stored hash was made with the parameters of now."""
        return stored_parameters(password_hash) == self._argon2

    def check_room(self, *, stranger: bool) -> None:
        """Refuse before anything else is done for a password that would find the queue full.

        Strangers are refused when it is full but for a quarter, which is left for known devices and live sessions: so a
        flood of guesses does not lock these out.

        Raises:
            Busy: it is.
        """
        if len(self._under_way) >= (self._most * 3 // 4 if stranger else self._most):
            raise _busy()

    @property
    def busy_with(self) -> int:
        """How many passwords are being checked, or wait for that."""
        return len(self._under_way)

    def close(self) -> None:
        """Take nothing more on; what is queued is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str) -> str:
        try:
            return self._hasher.hash(password, salt=self._salt(16))
        except HashingError:
            raise _out_of_memory() from None

    def _verify(self, password_hash: str, password: str) -> bool:
        foreign = read_foreign(password_hash)
        if foreign is not None:
            return _fits(foreign, password)
        try:
            return self._hasher.verify(password_hash, password)
        except VerificationError as error:
            if str(error) == _NO_MEMORY:  # which says nothing of the password
                raise _out_of_memory() from None
            return False
        except InvalidHashError:
            return False

    def _free(self, future: Future[Any]) -> None:
        self._under_way.discard(future)
        self._places.release()

    async def _run(self, work: Callable[[], _T]) -> _T:
        if not self._places.acquire(blocking=False):
            raise _busy()
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            self._places.release()
            raise Busy("The server is stopping. Try again in a moment.") from None
        # Freed when the work ends, not when the asker goes away: a cancelled request still occupies its thread.
        self._under_way.add(future)
        future.add_done_callback(self._free)
        return await asyncio.wrap_future(future)


def _fits(foreign: Foreign, password: str) -> bool:
    """Tell whether a password fits another program's hash, by that program's rule.

    Raises:
        Busy: there is no memory for it.
    """
    function: Scrypt | PBKDF2HMAC
    match foreign:
        case foreign_hashes.Bcrypt(text, of_digest):
            raw = password.encode()
            given = hashlib.sha256(raw).hexdigest().encode() if of_digest else raw[:_BCRYPT_TAKES_BYTES]
            return bcrypt.checkpw(given, text.encode())
        case foreign_hashes.Scrypt(n, r, p, salt, key, in_nfkc):
            function = Scrypt(salt=salt, length=len(key), n=n, r=r, p=p)
            password = unicodedata.normalize("NFKC", password) if in_nfkc else password
        case foreign_hashes.Pbkdf2(digest, iterations, salt, key):
            function = PBKDF2HMAC(algorithm=_DIGESTS[digest](), length=len(key), salt=salt, iterations=iterations)
    try:
        function.verify(password.encode(), key)
    except InvalidKey:
        return False
    except MemoryError:
        raise _out_of_memory() from None
    return True


def _out_of_memory() -> Busy:
    return Busy("The server has no memory to hash a password with. Try again in a moment.")


def _busy() -> Busy:
    return Busy("The server is checking as many passwords as it can. Try again in a moment.")


def _yield_to_requests() -> None:
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
