"""Somebody has a copy of the database, and not the master key: what they can make of it."""

import base64
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from jotgate import SettingsError
from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.server import Settings, create_app
from jotgate.server.records import SealedKey
from jotgate.server.refresh_tokens import RefreshTokens
from jotgate.server.refusals import InvalidRefreshToken
from jotgate.server.sealing import MasterKey
from tests.server.http.support import Api, Clock, client_of


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    clock = Clock()
    settings = Settings(signup="open", data_dir=tmp_path / "data")
    app = create_app(settings, clock=clock)
    async with client_of(app) as http:
        yield Api(app, http, clock, settings)
    app.close()


def database_files(api: Api) -> bytes:
    """The database as it lies on the disk, its log of writes included."""
    files = sorted(api.settings.data_dir.glob("jotgate.sqlite3*"))
    assert any(file.name == "jotgate.sqlite3" for file in files)
    return b"\n".join(file.read_bytes() for file in files)


def values(api: Api) -> list[bytes]:
    """Every text and every blob of every table."""
    found: set[bytes] = set()
    with closing(sqlite3.connect(api.settings.data_dir / "jotgate.sqlite3")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for line in database.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - the names come from the schema
                found.update(
                    each.encode() if isinstance(each, str) else each for each in line if hasattr(each, "__len__")
                )
    return sorted(found)


def unsealed(api: Api) -> Iterator[tuple[SealedKey, bytes]]:
    """What the holder of the master key has."""
    store = api.app.start().store
    master = api.settings.master_key_source.load(make=False)
    for row in store.load_keys():
        if row.sealed:
            yield row, master.unseal(row.sealed, purpose=row.purpose, kid=row.kid)


def spellings(private: bytes) -> set[bytes]:
    """A private key in all the ways in which it could lie about."""
    raws = {private}
    if private.startswith(b"-----BEGIN"):
        raws.update(line for line in private.splitlines() if not line.startswith(b"-----"))
        key = load_pem_private_key(private, None)
        raws.add(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        raws.add(key.private_numbers().private_value.to_bytes(32))  # type: ignore[union-attr]  # the server's are EC keys
    spelt = set(raws)
    for raw in raws:
        spelt |= {raw.hex().encode(), raw.hex().upper().encode(), encode_segment(raw).encode(), base64.b64encode(raw)}
    return {text for text in spelt if len(text) >= 24}  # shorter lines of PEM stand there by chance


async def test_a_copy_of_the_database_yields_no_private_key(api: Api) -> None:
    await api.signup()
    await api.login()
    copy = database_files(api)
    keys = list(unsealed(api))
    assert {row.purpose for row, _ in keys} >= {"access", "feed", "refresh"}
    for row, private in keys:
        assert row.sealed in copy  # so that what is looked through is the right thing
        assert [spelt for spelt in spellings(private) if spelt in copy] == []
    assert b"PRIVATE KEY" not in copy
    master = (api.settings.data_dir / "master.key").read_bytes().strip()
    assert master not in copy
    assert decode_segment(master.decode()) not in copy


async def test_what_stands_in_the_database_is_no_master_key(api: Api) -> None:
    await api.signup()
    await api.login()
    row = next(row for row, _ in unsealed(api) if row.purpose == "refresh")
    for secret in secrets_in(values(api)):
        with pytest.raises(SettingsError):
            MasterKey(secret).unseal(row.sealed, purpose=row.purpose, kid=row.kid)


def secrets_in(stored: list[bytes]) -> set[bytes]:
    """Every 32 bytes that somebody could take for a key: all that stand there, and hashes of all that stand there."""
    found = {bytes(32)}
    for value in stored:
        found.add(hashlib.sha256(value).digest())
        found.update(value[n : n + 32] for n in range(len(value) - 31))
    return found


def tokens_under(secret: bytes, stored: list[bytes], mac_kid: str) -> Iterator[str]:
    """Refresh tokens of every family that stands there, in its next few generations."""
    tokens = RefreshTokens({mac_kid: secret}, active=mac_kid)
    for family_id in (value for value in stored if len(value) == 16):
        for generation in range(3):
            yield tokens.encode(family_id, generation, mac_kid)


async def test_a_copy_of_the_database_yields_no_refresh_token(api: Api) -> None:
    await api.signup()
    token = (await api.login())["refresh_token"]
    assert token.encode() not in database_files(api)
    stored = values(api)
    active = api.app.start().refresh_tokens.active
    mac_kid, mac_key = next((row.kid, private) for row, private in unsealed(api) if row.kid == active)
    assert token in tokens_under(mac_key, stored, mac_kid)  # with the master key, this way leads to it
    server = api.app.start().refresh_tokens
    tried = 0
    for secret in secrets_in(stored):
        for forged in tokens_under(secret, stored, mac_kid):
            tried += 1
            with pytest.raises(InvalidRefreshToken):
                server.decode(forged)
    assert tried > 1000
    assert (await api.refresh(forged)).status_code == 401
    assert (await api.refresh(token)).status_code == 200


async def test_another_master_key_gives_no_key_and_repeats_nothing(api: Api) -> None:
    for row, private in list(unsealed(api)):
        with pytest.raises(SettingsError) as caught:
            MasterKey(b"x" * 32, b"y" * 32).unseal(row.sealed, purpose=row.purpose, kid=row.kid)
        for shown in (repr(caught.value), str(caught.value), repr(row)):
            assert not any(spelt.decode("latin-1") in shown for spelt in spellings(private))
        assert caught.value.__cause__ is None
