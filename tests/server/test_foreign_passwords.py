"""Passwords of accounts that another program has hashed fit by that program's rule, until the first login hashes anew.

The hashes are made here by the programs' formulas, with little work; those that are quoted are of Django's own tests.
"""

import base64
import hashlib
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import bcrypt
import pytest
from argon2 import PasswordHasher, Type

from jotgate.server import Settings, create_app
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import login
from jotgate.server.limits import Asker
from jotgate.server.passwords import Passwords
from jotgate.server.records import Account
from jotgate.server.refusals import InvalidCredentials
from jotgate.server.rules.foreign_hashes import parse_foreign
from jotgate.server.secret import Secret

NOW: Final = 1_795_000_000
EMAIL: Final = "ada@example.com"
PASSWORD: Final = "correct horse battery stäple"
SALT_HEX: Final = "00112233445566778899aabbccddeeff"


def blowfish(password: bytes) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


def scrypt(password: str, salt: str, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt.encode(), n=n, r=r, p=p, maxmem=2**26, dklen=64)


def pbkdf2(digest: str, password: str) -> bytes:
    return hashlib.pbkdf2_hmac(digest, password.encode(), b"seasalt", 1000)


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def made(password: str) -> dict[str, str]:
    raw = password.encode()
    argon2 = {
        kind: PasswordHasher(time_cost=1, memory_cost=64, parallelism=1, type=kind).hash(password) for kind in Type
    }
    return {
        "bcrypt": blowfish(raw[:72]),
        "bcrypt of PHP": blowfish(raw[:72]).replace("$2b$", "$2y$"),
        "Django's bcrypt": "bcrypt$" + blowfish(raw[:72]),
        "Django's bcrypt of a digest": "bcrypt_sha256$" + blowfish(hashlib.sha256(raw).hexdigest().encode()),
        "Werkzeug's scrypt": f"scrypt:64:8:1$seasalt${scrypt(password, 'seasalt', 64, 8, 1).hex()}",
        "Werkzeug's PBKDF2": f"pbkdf2:sha256:1000$seasalt${pbkdf2('sha256', password).hex()}",
        "Werkzeug's PBKDF2 with SHA-512": f"pbkdf2:sha512:1000$seasalt${pbkdf2('sha512', password).hex()}",
        "Django's scrypt": f"scrypt$64$seasalt$8$5${b64(scrypt(password, 'seasalt', 64, 8, 5))}",
        "Django's PBKDF2": f"pbkdf2_sha256$1000$seasalt${b64(pbkdf2('sha256', password))}",
        "Django's PBKDF2 with SHA-1": f"pbkdf2_sha1$1000$seasalt${b64(pbkdf2('sha1', password))}",
        "better-auth's": f"{SALT_HEX}:{scrypt(unicodedata.normalize('NFKC', password), SALT_HEX, 16_384, 16, 1).hex()}",
        "Argon2i": argon2[Type.I],
        "Argon2d": argon2[Type.D],
        "Django's Argon2id": "argon2" + argon2[Type.ID],
    }


MADE: Final = made(PASSWORD)
LONG: Final = "wörds ﬁll " * 12  # over 72 bytes, and another text in NFKC


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(1)
    yield made
    made.close()


@pytest.mark.parametrize("form", MADE)
async def test_a_password_fits_another_programs_hash_and_no_other_password_does(
    passwords: Passwords, form: str
) -> None:
    kept = parse_foreign(MADE[form])
    assert await passwords.verify(kept, PASSWORD)
    assert not await passwords.verify(kept, PASSWORD + "x")
    assert not await passwords.verify(kept, PASSWORD.upper())
    assert not await passwords.verify(kept, "")
    assert passwords.is_usable(kept)
    assert not passwords.is_current(kept)


@pytest.mark.parametrize("form", MADE)
async def test_long_passwords_with_letters_of_any_kind_fit(passwords: Passwords, form: str) -> None:
    assert await passwords.verify(parse_foreign(made(LONG)[form]), LONG)


async def test_of_a_password_bcrypt_knows_72_bytes_and_django_with_a_digest_all(passwords: Passwords) -> None:
    hashes = made("x" * 72 + "one end")
    assert await passwords.verify(parse_foreign(hashes["bcrypt"]), "x" * 72 + "another")
    assert not await passwords.verify(parse_foreign(hashes["Django's bcrypt of a digest"]), "x" * 72 + "another")


@pytest.mark.parametrize(
    "text",
    [
        "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=",
        "scrypt$16384$seasalt$8$1$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw==",
        "scrypt$16384$seasalt$8$5$ECMIUp+LMxMSK8xB/IVyba+KYGTI7FTnet025q/1f/vBAVnnP3hdYqJuRi+mJn6ji6ze3Fbb7JEFPKGpuEf5vw==",
    ],
)
async def test_the_hashes_of_djangos_own_tests_fit(passwords: Passwords, text: str) -> None:
    assert await passwords.verify(parse_foreign(text), "lètmein")
    assert not await passwords.verify(parse_foreign(text), "letmein")


async def test_a_form_that_was_never_taken_in_fits_nothing(passwords: Passwords) -> None:
    for stored in (MADE["better-auth's"], MADE["Django's bcrypt"], MADE["bcrypt"].replace("$04$", "$20$")):
        assert not passwords.is_usable(stored)
        assert not await passwords.verify(stored, PASSWORD)


@pytest.fixture
async def deps(tmp_path: Path) -> AsyncIterator[Deps]:
    app = create_app(Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1), clock=lambda: NOW)
    async with app.lifespan():
        yield app.start()


async def log_in(deps: Deps, password: str) -> None:
    await login(deps, EMAIL, Secret(password), NOW, Origin(), asker=Asker())


@pytest.mark.parametrize("form", ["Django's PBKDF2", "bcrypt", "Argon2i", "better-auth's"])
async def test_the_first_login_replaces_the_hash_and_a_wrong_password_leaves_it(
    deps: Deps, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = parse_foreign(MADE[form])
    await deps.store.add_account(Account(id="ada", email=EMAIL, password_hash=kept, scopes=(), created_at=NOW))
    with pytest.raises(InvalidCredentials):
        await log_in(deps, "not the password at all")
    stored = await deps.store.account_by_id("ada")
    assert stored is not None
    assert stored.password_hash == kept
    await log_in(deps, PASSWORD)
    stored = await deps.store.account_by_id("ada")
    assert stored is not None
    assert deps.passwords.is_current(stored.password_hash)
    await log_in(deps, PASSWORD)
    assert caplog.messages == [], "the hash was called unusable"
