"""PyJWT, joserfc, jwcrypto and npm's jose as judges of tokens, keys and key sets: None for what is taken, else why not.

Each peer gets the key, the algorithm, issuer, audience, leeway and time that ours gets, and is as strict as it can be.
"""

from __future__ import annotations

import base64
import datetime as dt
import importlib
import json
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol, TypeAlias

import joserfc.jwk
import joserfc.jwt
import jwt
import jwt.api_jwt
import pytest

from tests.conftest import node_command
from tests.fuzz.mutation import AUDIENCE, ISSUER, NOW

Json: TypeAlias = Any
Reason: TypeAlias = str | None
LEEWAY_S = 5


class KeyVerdict(NamedTuple):
    """Whether a JWK is read, and whether a token that the unchanged key signed is then taken."""

    read: Reason
    verified: Reason


class Peer(Protocol):
    """One library; whatever it raises is a refusal."""

    name: str

    def judge_tokens(self, tokens: Sequence[str], algorithm: str, jwk: Mapping[str, Json]) -> list[Reason]: ...

    def judge_keys(self, keys: Sequence[bytes], algorithm: str, token: str) -> list[KeyVerdict]: ...


class SetPeer(Peer, Protocol):
    """A library that reads JWK sets, too: whether the token is taken whose header names one of the set's keys."""

    def judge_sets(self, sets: Sequence[bytes], algorithm: str, token: str) -> list[Reason]: ...


NOT_READ = "not read: "
"""Begins the reason why a set is refused as a whole."""


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:200]


class _FixedTime(dt.datetime):
    """PyJWT takes no time as an argument, so its clock stands still instead."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> _FixedTime:
        return cls.fromtimestamp(NOW, tz)


class PyJwt:
    name = "PyJWT"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jwt.api_jwt, "datetime", _FixedTime)
        self._jwt = jwt.PyJWT()
        # It does not know RFC 9864's name yet.
        self._jwt._jws.register_algorithm("Ed25519", jwt.algorithms.OKPAlgorithm())

    def _judge(self, token: str, algorithm: str, key: Json) -> Reason:
        try:
            self._jwt.decode(
                token,
                key,
                [algorithm],
                {"require": ["exp", "sub", "iat"]},
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_S,
            )
        except Exception as error:  # noqa: BLE001 # a peer may fail in any way
            return _said(error)
        return None

    def judge_tokens(self, tokens: Sequence[str], algorithm: str, jwk: Mapping[str, Json]) -> list[Reason]:
        key = self._key(dict(jwk), algorithm)
        return [self._judge(token, algorithm, key) for token in tokens]

    @staticmethod
    def _key(members: Json, algorithm: str) -> Json:
        old = "EdDSA" if algorithm == "Ed25519" else algorithm
        if isinstance(members, dict) and members.get("alg") == algorithm:
            members["alg"] = old
        return jwt.PyJWK(members, None if isinstance(members, dict) and "alg" in members else old).key

    def judge_keys(self, keys: Sequence[bytes], algorithm: str, token: str) -> list[KeyVerdict]:
        verdicts = []
        for text in keys:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    key = self._key(json.loads(text), algorithm)
                except Exception as error:  # noqa: BLE001
                    verdicts.append(KeyVerdict(_said(error), "not read"))
                else:
                    verdicts.append(KeyVerdict(None, self._judge(token, algorithm, key)))
        return verdicts

    def judge_sets(self, sets: Sequence[bytes], algorithm: str, token: str) -> list[Reason]:
        kid = jwt.get_unverified_header(token)["kid"]
        return [self._judge_set(text, algorithm, token, kid) for text in sets]

    def _judge_set(self, text: bytes, algorithm: str, token: str, kid: str) -> Reason:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                members = json.loads(text)
                for entry in members["keys"]:
                    if not isinstance(entry, dict):
                        continue
                    if entry.get("alg") == "Ed25519":
                        entry["alg"] = "EdDSA"
                    if "alg" not in entry and entry.get("kty") == "RSA":
                        entry["alg"] = algorithm  # it would take the key for RS256; ours takes what the caller names
                keys = jwt.PyJWKSet.from_dict(members)
            except Exception as error:  # noqa: BLE001
                return NOT_READ + _said(error)
            try:
                key = keys[kid]
            except KeyError as error:
                return _said(error)
            if key.algorithm_name not in (algorithm, "EdDSA" if algorithm == "Ed25519" else algorithm):
                return "the key is for another algorithm"
            return self._judge(token, algorithm, key.key)


class Joserfc:
    name = "joserfc"

    def __init__(self) -> None:
        self._claims = joserfc.jwt.JWTClaimsRegistry(
            now=NOW,
            leeway=LEEWAY_S,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
            sub={"essential": True},
            iat={"essential": True},
        )

    def _judge(self, token: str, algorithm: str, key: Json) -> Reason:
        try:
            self._claims.validate(joserfc.jwt.decode(token, key, algorithms=[algorithm]).claims)
        except Exception as error:  # noqa: BLE001
            return _said(error)
        return None

    def judge_tokens(self, tokens: Sequence[str], algorithm: str, jwk: Mapping[str, Json]) -> list[Reason]:
        members: Json = dict(jwk)
        key = joserfc.jwk.import_key(members)
        return [self._judge(token, algorithm, key) for token in tokens]

    def judge_keys(self, keys: Sequence[bytes], algorithm: str, token: str) -> list[KeyVerdict]:
        verdicts = []
        for text in keys:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    key = joserfc.jwk.import_key(json.loads(text))
                    key.check_use("sig")
                    _ = key.public_key if key.key_type != "oct" else key.raw_value
                except Exception as error:  # noqa: BLE001
                    verdicts.append(KeyVerdict(_said(error), "not read"))
                else:
                    verdicts.append(KeyVerdict(None, self._judge(token, algorithm, key)))
        return verdicts

    def judge_sets(self, sets: Sequence[bytes], algorithm: str, token: str) -> list[Reason]:
        verdicts: list[Reason] = []
        for text in sets:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    keys = joserfc.jwk.KeySet.import_key_set(json.loads(text))
                except Exception as error:  # noqa: BLE001
                    verdicts.append(NOT_READ + _said(error))
                else:
                    verdicts.append(self._judge(token, algorithm, keys))
        return verdicts


class JwCrypto:
    """The only peer here that knows ML-DSA; Node's WebCrypto has it from release 24 on."""

    name = "jwcrypto"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # It has no types, which mypy would complain of.
        self._jwk: Json = importlib.import_module("jwcrypto.jwk")
        self._jwt: Json = importlib.import_module("jwcrypto.jwt")
        # It takes no time as an argument either.
        monkeypatch.setattr(self._jwt, "time", SimpleNamespace(time=lambda: NOW))

    def _judge(self, token: str, algorithm: str, key: Json) -> Reason:
        judge = self._jwt.JWT(
            algs=[algorithm],
            check_claims={"iss": ISSUER, "aud": AUDIENCE, "exp": None, "sub": None, "iat": None},
            expected_type="JWS",
            strict_serialization=True,
        )
        judge.leeway = LEEWAY_S
        try:
            judge.deserialize(token, key)
        except Exception as error:  # noqa: BLE001
            return _said(error)
        return None

    def judge_tokens(self, tokens: Sequence[str], algorithm: str, jwk: Mapping[str, Json]) -> list[Reason]:
        key = self._jwk.JWK(**jwk)
        return [self._judge(token, algorithm, key) for token in tokens]

    def judge_keys(self, keys: Sequence[bytes], algorithm: str, token: str) -> list[KeyVerdict]:
        verdicts = []
        for text in keys:
            try:
                key = self._jwk.JWK.from_json(text.decode("utf-8"))
                key.get_op_key("verify")
            except Exception as error:  # noqa: BLE001
                verdicts.append(KeyVerdict(_said(error), "not read"))
            else:
                verdicts.append(KeyVerdict(None, self._judge(token, algorithm, key)))
        return verdicts


class Jose:
    """One node process for all questions; `close` ends it."""

    name = "jose"

    def __init__(self, node: str, node_modules: Path) -> None:
        script = Path(__file__).with_name("jose_peer.mjs")
        self._process = subprocess.Popen(
            [*node_command(node), str(script), str(node_modules)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def _ask(self, **question: Json) -> list[Json]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        shared = {"issuer": ISSUER, "audience": AUDIENCE, "now": NOW}
        # ASCII with escapes: lone surrogates and line separators pass as they are.
        self._process.stdin.write(json.dumps(question | shared) + "\n")
        self._process.stdin.flush()
        answers: list[Json] = json.loads(self._process.stdout.readline())
        return answers

    def judge_tokens(self, tokens: Sequence[str], algorithm: str, jwk: Mapping[str, Json]) -> list[Reason]:
        return self._ask(tokens=list(tokens), algorithm=algorithm, jwk=dict(jwk))

    def judge_keys(self, keys: Sequence[bytes], algorithm: str, token: str) -> list[KeyVerdict]:
        texts = [base64.b64encode(key).decode() for key in keys]
        return [KeyVerdict(*answer) for answer in self._ask(keys=texts, algorithm=algorithm, token=token)]

    def judge_sets(self, sets: Sequence[bytes], algorithm: str, token: str) -> list[Reason]:
        texts = [base64.b64encode(text).decode() for text in sets]
        return self._ask(sets=texts, algorithm=algorithm, token=token)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
