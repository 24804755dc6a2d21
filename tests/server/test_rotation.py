"""Keys that turn under running servers: replicas agree, nobody's request fails, and what is revoked is dead at once."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jotgate import SettingsError, UnknownKey, Verifier, generate_key
from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.errors import KeyRefused
from jotgate.core.jwk import Key, KeySet
from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.rules.keys import AlgorithmNotUsed, KeyChange, KeyInUse, KeyNotMature, NoSuchKey
from jotgate.server.secret import Secret
from tests.server.http.support import EMAIL, Api, Clock, client_of, code

WITHIN_S = 15.0
JWKS = "/.well-known/jwks.json"
FEED_KEYS = "/.well-known/revocation-keys.json"
DAY_S = 86_400
AHEAD_S = 900


@dataclass
class Replicas:
    """Servers on one database and by one clock."""

    settings: Settings
    stack: AsyncExitStack
    clock: Clock = field(default_factory=Clock)
    all: list[Api] = field(default_factory=list)

    async def start(self, **changes: object) -> Api:
        settings = msgspec.structs.replace(self.settings, **changes)
        app = create_app(settings, clock=self.clock)
        await self.stack.enter_async_context(app.lifespan())
        http = await self.stack.enter_async_context(client_of(app))
        self.all.append(Api(app, http, self.clock, settings))
        return self.all[-1]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def signing(api: Api) -> Key:
    key = api.app.start().keys.now.signing
    assert key is not None
    return key


def feed_key(api: Api) -> Key:
    key = api.app.start().keys.now.feed
    assert key is not None
    return key


async def kids(api: Api, path: str = JWKS) -> list[str]:
    return [each["kid"] for each in (await api.http.get(path)).json()["keys"]]


def kid_of(token: str) -> str:
    kid: str = json.loads(decode_segment(token.split(".", maxsplit=1)[0]))["kid"]
    return kid


async def turned(api: Api, before: Key) -> None:
    ring = api.app.start().keys
    # In a database that was put back there is none for a moment: the one that signs in the copy is revoked again first.
    await until(lambda: ring.now.signing is not None and ring.now.signing.kid != before.kid)


@pytest.fixture(params=["sqlite", "postgres"])
async def replicas(request: pytest.FixtureRequest, tmp_path: Path, postgres_program: str) -> AsyncIterator[Replicas]:
    settings = Settings(
        signup="open", data_dir=tmp_path / "data", hash_workers=1, master_key=Secret(encode_segment(b"m" * 32))
    )
    if request.param == "postgres":
        url = Secret(request.getfixturevalue("postgres_url"))
        settings = msgspec.structs.replace(settings, database_url=url)
    async with AsyncExitStack() as stack:
        yield Replicas(settings, stack)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        yield await Replicas(Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1), stack).start()


async def test_replicas_rotate_once_and_all_see_it_without_a_restart(replicas: Replicas) -> None:
    one, two = await replicas.start(), await replicas.start()
    assert await kids(one) == await kids(two)
    before, following = signing(one), (await kids(one))[1:]
    await one.signup()
    replicas.clock.now += 30 * DAY_S - 10
    tokens = await one.login()
    replicas.clock.now += 10
    await turned(one, before)
    await turned(two, before)
    assert signing(one).kid == signing(two).kid
    assert signing(one).kid in following
    await until(lambda: len(two.app.start().keys.now.published) == len(one.app.start().keys.now.published) == 4)
    assert await kids(one) == await kids(two)
    assert before.kid in await kids(two)
    # Nobody is logged out by it, and every replica signs with the new key and verifies with both.
    for each in (one, two):
        answer = (await each.refresh(tokens["refresh_token"])).json()
        assert kid_of(answer["access_token"]) == signing(one).kid
        assert each.app.verifier().verify(answer["access_token"]).subject


async def test_a_token_of_the_retired_key_is_good_until_it_expires(api: Api) -> None:
    await api.signup()
    before = signing(api)
    api.clock.now += 30 * DAY_S - 10
    tokens = await api.login()
    api.clock.now += 10
    await turned(api, before)
    assert kid_of(tokens["access_token"]) == before.kid
    assert api.app.verifier().verify(tokens["access_token"]).subject


async def test_a_key_is_published_for_three_cache_times_before_it_signs(api: Api) -> None:
    answer = await api.http.get(JWKS)
    assert answer.headers["cache-control"] == "public, max-age=300"
    ring = api.app.start().keys
    api.clock.now += AHEAD_S
    with pytest.raises(KeyNotMature):
        ring.rotate("access")
    api.clock.now += 1
    following = (await kids(api))[1:]
    ring.rotate("access")
    ring.reload()
    assert signing(api).kid in following


async def test_the_key_set_keeps_its_order_and_shows_every_change_in_its_etag(api: Api) -> None:
    first = await api.http.get(JWKS)
    before = signing(api)
    api.clock.now += 30 * DAY_S
    await turned(api, before)
    second = await api.http.get(JWKS)
    assert second.headers["etag"] != first.headers["etag"]
    shown = [each["kid"] for each in second.json()["keys"]]
    assert shown[:2] == [before.kid, signing(api).kid]
    assert set(shown) > {each["kid"] for each in first.json()["keys"]}
    unchanged = await api.http.get(JWKS, headers={"if-none-match": second.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    members = {name for each in second.json()["keys"] for name in each}
    assert members == {"kty", "crv", "x", "y", "kid", "alg", "use"}


async def test_a_revoked_key_signs_nothing_more_is_published_nowhere_and_its_tokens_are_dead(
    replicas: Replicas,
) -> None:
    one, two = await replicas.start(), await replicas.start()
    await one.signup()
    replicas.clock.now += AHEAD_S + 1
    tokens = await one.login()
    revoked, (_, *following) = signing(one), await kids(one)
    ring = one.app.start().keys
    await asyncio.to_thread(ring.revoke, revoked.kid)
    for each in (one, two):
        await turned(each, revoked)
        assert signing(each).kid in following
        assert revoked.kid not in await kids(each)
        await until(partial(_is_refused, each.app, tokens["access_token"]))
        # The session lives: its next token is of the next key.
        refreshed = (await each.refresh(tokens["refresh_token"])).json()
        assert kid_of(refreshed["access_token"]) == signing(one).kid
    rows = {row.kid: row for row in one.app.start().store.load_keys()}
    assert rows[revoked.kid].sealed == b""


def _is_refused(app: AuthApp, token: str) -> bool:
    try:
        app.verifier().verify(token)
    except UnknownKey:
        return True
    return False


async def test_a_revoked_key_does_not_come_back_when_its_log_entry_is_over(api: Api) -> None:
    revoked = signing(api)
    ring = api.app.start().keys
    await asyncio.to_thread(ring.revoke, revoked.kid)
    await turned(api, revoked)
    api.app.start().live.learn([])
    api.app.start().live._list.drop(2**40)  # what `tidy` does when the time has come
    api.app.start().live.learn([])
    await asyncio.to_thread(ring.reload)
    assert revoked.kid not in api.app.live_snapshot().keys


async def test_a_database_restored_from_a_copy_does_not_bring_a_revoked_key_back(api: Api) -> None:
    deps = api.app.start()
    revoked = signing(api)
    copy = next(row for row in deps.store.load_keys() if row.kid == revoked.kid)
    await asyncio.to_thread(deps.keys.revoke, revoked.kid)
    await turned(api, revoked)
    now = next(row for row in deps.store.load_keys() if row.kid == signing(api).kid)
    put_back = KeyChange((copy, msgspec.structs.replace(now, activated_at=None)))
    await asyncio.to_thread(partial(deps.store.change_keys, lambda _: put_back, now=api.clock.now, until_s=3720))
    await until(lambda: {row.kid: row for row in deps.store.load_keys()}[revoked.kid].revoked_at is not None)
    await turned(api, revoked)
    assert revoked.kid not in await kids(api)


@pytest.mark.parametrize("algorithm", ["Ed25519", "RS256", "PS512", "ES384", "ML-DSA-44"])
async def test_another_algorithm_is_a_rotation_that_nobody_notices(tmp_path: Path, algorithm: str) -> None:
    async with AsyncExitStack() as stack:
        replicas = Replicas(Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1), stack)
        old = await replicas.start()
        await old.signup()
        tokens = await old.login()
        new = await replicas.start(signing_algorithm=algorithm)
        assert signing(new).algorithm == "ES256"
        published = (await new.http.get(JWKS)).json()["keys"]
        assert sorted(each["alg"] for each in published) == sorted(["ES256"] * 3 + [algorithm] * 2)
        before = signing(new)
        replicas.clock.now += AHEAD_S + 2
        for each in (old, new):
            await turned(each, before)
            answer = (await each.refresh(tokens["refresh_token"])).json()
            assert signing(each).algorithm == algorithm
            assert each.app.verifier().verify(answer["access_token"]).subject
            verifier = Verifier(
                issuer=each.settings.issuer,
                audience="api",
                keys=KeySet.from_jwks((await each.http.get(JWKS)).content),
                clock=replicas.clock,
            )
            assert verifier.verify(answer["access_token"]).subject


async def test_a_secret_signs_for_this_server_alone_and_the_log_says_why_that_is_worse(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "jotgate")
    async with AsyncExitStack() as stack:
        settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1, signing_algorithm="HS256")
        api = await Replicas(settings, stack).start()
        await api.signup()
        token = (await api.login())["access_token"]
        assert api.app.verifier().verify(token).subject
        assert (await api.http.get(JWKS)).json() == {"keys": []}
        account = await api.http.get("/v1/account", headers={"authorization": f"Bearer {token}"})
        assert account.json()["email"] == EMAIL
    told = [json.loads(record.getMessage()) for record in caplog.records if record.name == "jotgate"]
    [warning] = [each for each in told if each["event"] == "symmetric_signing"]
    assert "can also make one" in warning["reason"]


def test_a_secret_is_refused_where_several_machines_share_a_database() -> None:
    with pytest.raises(SettingsError, match="HS512 is for one process alone"):
        Settings(
            signing_algorithm="HS512",
            database_url=Secret("postgresql://u:p@db.example.com/auth"),
            master_key=Secret(encode_segment(b"m" * 32)),
        )


@pytest.mark.parametrize("algorithm", ["none", "EdDSA", "es256", "RSA1_5", ""])
def test_an_algorithm_that_is_none_is_a_fault(algorithm: str) -> None:
    with pytest.raises(SettingsError, match="signing_algorithm must be one of HS256, "):
        Settings(signing_algorithm=algorithm)


def test_a_rotation_cannot_be_faster_than_keys_become_known() -> None:
    Settings(key_rotation_s=900)
    with pytest.raises(SettingsError, match="key_rotation_s must be at least three times jwks_max_age_s"):
        Settings(key_rotation_s=899)


async def test_refresh_tokens_outlive_many_rotations_and_replays_stay_the_same_bytes(api: Api) -> None:
    await api.signup()
    first = (await api.login())["refresh_token"]
    deps = api.app.start()
    before = deps.refresh_tokens.active
    api.clock.now += AHEAD_S + 1
    second = (await api.refresh(first)).json()["refresh_token"]
    await asyncio.to_thread(deps.keys.rotate, "refresh")
    await asyncio.to_thread(deps.keys.reload)
    assert deps.refresh_tokens.active != before
    assert (await api.refresh(first)).json()["refresh_token"] == second  # a replay within the grace
    third = (await api.refresh(second)).json()["refresh_token"]
    assert deps.refresh_tokens.decode(third).mac_kid == deps.refresh_tokens.active
    assert (await api.refresh(second)).json()["refresh_token"] == third


async def test_a_revoked_mac_key_ends_its_sessions_and_no_other(api: Api) -> None:
    await api.signup()
    old = (await api.login())["refresh_token"]
    deps = api.app.start()
    revoked = deps.refresh_tokens.active
    await asyncio.to_thread(deps.keys.revoke, revoked)
    await asyncio.to_thread(deps.keys.reload)
    assert code(await api.refresh(old)) == (401, "invalid_refresh_token")
    new = (await api.login())["refresh_token"]
    assert (await api.refresh(new)).status_code == 200


async def test_the_feeds_key_turns_too_and_messages_of_before_are_not_sent_under_it(api: Api) -> None:
    deps = api.app.start()
    before = feed_key(api)
    await asyncio.to_thread(deps.keys.revoke, before.kid)
    await until(lambda: feed_key(api).kid != before.kid)
    assert before.kid not in await kids(api, FEED_KEYS)
    snapshot = (await api.http.get("/revocations")).text
    assert kid_of(snapshot) == feed_key(api).kid
    position = deps.feed.head
    stream = deps.feed.since(position).decode()
    assert all(kid_of(line[6:]) == feed_key(api).kid for line in stream.splitlines() if line.startswith("data: "))


async def test_a_key_from_elsewhere_signs_when_it_is_known(api: Api) -> None:
    ring = api.app.start().keys
    api.clock.now += 1
    await asyncio.to_thread(ring.bring, generate_key("ES256", kid="from the HSM"))
    await until(lambda: "from the HSM" in ring.now.published)
    api.clock.now += AHEAD_S + 1
    before = signing(api)
    await asyncio.to_thread(ring.rotate, "access")
    await turned(api, before)
    assert signing(api).kid == "from the HSM"


async def test_one_key_has_one_purpose_one_algorithm_and_one_life(api: Api) -> None:
    ring = api.app.start().keys
    brought = generate_key("ES256")
    ring.bring(brought)
    again = Key.from_pem(brought.to_pem(), "ES256", kid="another name")
    with pytest.raises(KeyInUse):
        ring.bring(again)
    with pytest.raises(KeyInUse):
        ring.bring(feed_key(api))
    with pytest.raises(AlgorithmNotUsed):
        ring.bring(generate_key("RS256"))
    ring.reload()
    ring.revoke(brought.kid)
    with pytest.raises(KeyInUse):
        ring.bring(brought)
    with pytest.raises(KeyRefused):
        ring.bring(generate_key("ES256").public)
    with pytest.raises(KeyRefused):
        ring.bring(generate_key("HS256"))
    with pytest.raises(NoSuchKey):
        ring.revoke("nobody's")


async def test_another_issuer_on_the_database_has_keys_of_its_own(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        replicas = Replicas(Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1), stack)
        one, two = await replicas.start(), await replicas.start(issuer="https://other.example.com")
        assert not set(await kids(one)) & set(await kids(two))
        assert one.app.start().refresh_tokens.active != two.app.start().refresh_tokens.active


def test_the_wrong_master_key_stops_the_start_for_every_issuer(tmp_path: Path) -> None:
    app = create_app(Settings(signup="open", data_dir=tmp_path / "data"))
    app.start()
    app.close()
    for issuer in ("https://localhost:8443", "https://other.example.com"):
        wrong = Settings(
            signup="open", data_dir=tmp_path / "data", issuer=issuer, master_key=Secret(encode_segment(b"x" * 32))
        )
        with pytest.raises(SettingsError, match="does not open the access key") as caught:
            create_app(wrong).start()
        assert len(caught.value.faults) == 1


async def test_keys_from_before_there_were_issuers_become_the_starting_servers(tmp_path: Path) -> None:
    settings = Settings(signup="open", data_dir=tmp_path / "data")
    app = create_app(settings)
    [signing_kid] = [key.kid for key in app.start().issuer.keys]
    await app.start().store._write(  # type: ignore[attr-defined] # as the migration leaves it
        lambda connection: connection.execute("UPDATE jotgate_keys SET issuer = ''").fetchall()
    )
    app.close()
    app = create_app(settings)
    assert [key.kid for key in app.start().issuer.keys] == [signing_kid]
    app.close()


async def test_nothing_private_is_in_a_log_a_key_set_or_a_repr(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    deps = api.app.start()
    secrets: list[str] = []
    for _ in range(2):
        secrets += [key.to_private_jwk()["d"] for key in (signing(api), feed_key(api))]
        secrets += [encode_segment(secret) for secret in deps.refresh_tokens._keys.values()]
        api.clock.now += AHEAD_S + 1
        for purpose in ("access", "feed", "refresh"):
            await asyncio.to_thread(deps.keys.rotate, purpose)
        await asyncio.to_thread(deps.keys.revoke, signing(api).kid)
        await asyncio.to_thread(deps.keys.reload)
    shown: list[Any] = [deps.keys.now, deps.store.load_keys(), caplog.text]
    shown += [(await api.http.get(path)).text for path in (JWKS, FEED_KEYS)]
    text = "".join(map(repr, shown))
    assert "key_revoked" in text
    assert not [secret for secret in secrets if secret in text]
    assert "PRIVATE" not in text
