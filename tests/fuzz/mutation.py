"""Makes what attackers and broken issuers send: mutants of tokens, keys and headers from one seeded random source.

Tokens are mutated before they are signed (so that the signature is good and the parsers and claim checks are reached)
and after it. It knows the formats and a signing function, but nothing of how jotgate reads any of them.
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = Any
Pairs: TypeAlias = list[tuple[str, str]]
"""Members of an object as JSON texts, so that a name can repeat and a value be no JSON at all."""

NOW = 1_750_000_000
ISSUER = "https://auth.example.com"
AUDIENCE = "api"
CLAIMS: dict[str, Json] = {
    "iss": ISSUER,
    "sub": "rYzZ1mNnQk2Yw0m8bq3T7A",
    "aud": AUDIENCE,
    "exp": NOW + 300,
    "iat": NOW,
    "jti": "3v1mB3TTRk6bF2mCjv7wCg",
}

# JSON texts, and some that are none.
ANY_VALUE = (
    *("null", "true", "false", "0", "-0", "1", "-1", "0.5", "1e3", "1E400", "-1e400", "NaN", "Infinity", "-Infinity"),
    *("9007199254740991", "9007199254740992", "9" * 400, "9" * 4301, "1." + "0" * 4400, "01", "1.", ".5", "+1", "0x1"),
    *('""', '"a"', '"1"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"😀"', '"\x00"', '"\t"'),
    *("[]", "{}", "[[]]", "[1]", '["a"]', "[1,]", "[,]", '{"a":1}', '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', "{,}"),
    *('{"__proto__":{"a":1}}', "'a'", "undefined", "/**/1", "[" * 31 + "]" * 31, "[" * 40 + "]" * 40, "[" * 3000),
)
TIMES = (
    *(str(NOW + s) for s in (-(10**6), -3600, -300, -61, -6, -5, -4, -1, 0, 1, 4, 5, 6, 61, 300, 3599, 3601, 10**6)),
    *(
        f"{NOW + 300}.0",
        f"{NOW + 4}.5",
        f"{NOW - 5}.5",
        f"{NOW + 300}e0",
        "1.7500003e9",
        "17500003E2",
        f'"{NOW + 300}"',
    ),
    *("-1", "0", "1e15", "1e16", "9007199254740991", "9007199254740992", "99999999999999999999", "[1750000300]"),
)
TEXTS = (
    '"api"',
    f'"{ISSUER}"',
    f'"{ISSUER}/"',
    f'["{ISSUER}"]',
    '"HTTPS://auth.example.com"',
    '"API"',
    '"ap"',
    '"apix"',
)
AUDIENCES = (
    *(
        '["api"]',
        '["api","other"]',
        '["other","api"]',
        '["api","api"]',
        '["other"]',
        '["api",5]',
        '["api",null]',
        "[5]",
    ),
    *('"api "', '"api\\u0000"', '"\\u0061pi"', '{"api":1}', '[["api"]]', '["api",["x"]]', '["\\u0061pi"]', '["",""]'),
)
VALUES: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("exp", "iat", "nbf", "auth_time"), TIMES),
    **dict.fromkeys(("iss", "sub", "jti"), TEXTS),
    "aud": AUDIENCES + TEXTS,
    "acr": TEXTS,
    "amr": ('["mfa"]', '["pwd","otp","mfa"]', "[]", '"mfa"', '["mfa",5]', "[null]", '[["mfa"]]', '{"mfa":1}', '[""]'),
    "alg": (
        *(
            '"none"',
            '"nOnE"',
            '"HS256"',
            '"hs256"',
            '"RS256"',
            '"ES256"',
            '"EdDSA"',
            '"Ed25519"',
            '"ES256K"',
            '["ES256"]',
        ),
        *('"PS256"', '"HS512"', '"RSA1_5"', '"dir"', '"\\u0045S256"', '"ES256 "', '"A128GCM"', '"RSA-OAEP"'),
    ),
    "typ": (
        *('"at+jwt"', '"AT+JWT"', '"application/at+jwt"', '"Application/AT+jwt"', '"at+jwt "', '"at+jwt;v=1"', '"JWT"'),
        *(
            '"application/application/at+jwt"',
            '"text/at+jwt"',
            '"\\u0061t+jwt"',
            '"at+jw\\u212a"',
            '["at+jwt"]',
            '"/at+jwt"',
        ),
    ),
    "kid": (
        '"../../etc/passwd"',
        '"\' OR 1=1 --"',
        '"' + "k" * 256 + '"',
        '"' + "k" * 257 + '"',
        '"constructor"',
        '["a"]',
    ),
    "crit": ("[]", '["exp"]', '["b64"]', '["alg"]', '["x","x"]', '["http://example.com/x"]', '"exp"', "{}", '[""]'),
    "b64": ("true", "false", '"false"'),
    "zip": ('"DEF"', '"GZIP"', "true"),
    "cty": ('"JWT"', '"json"', '["JWT"]'),
    "jku": ('"https://evil.example/jwks"', '"file:///etc/passwd"', "5"),
    "x5u": ('"https://evil.example/cert"', '""', "{}"),
    "jwk": ('{"kty":"oct","k":"AAAA"}', "{}", '"a"'),
    "x5c": ('["AAAA"]', "[]", '"AAAA"', "[5]"),
    "x5t": ('"AAAA"', "5"),
    "x5t#S256": ('"AAAA"', "5"),
    "enc": ('"A256GCM"',),
    "p2c": ("1000000000",),
    "use": ('"sig"', '"enc"', '"SIG"', '["sig"]', '""'),
    "key_ops": (
        *('["verify"]', '["sign"]', '["sign","verify"]', '["verify","verify"]', '["encrypt"]', "[]", '"verify"'),
        *('["verify","encrypt"]', '["deriveKey"]', "[5]", '["Verify"]'),
    ),
    "kty": ('"oct"', '"RSA"', '"EC"', '"OKP"', '"AKP"', '"ec"', '""'),
    "crv": ('"P-256"', '"P-384"', '"P-521"', '"secp256k1"', '"Ed25519"', '"X25519"', '"Ed448"', '"p-256"'),
    "e": ('"AQAB"', '"Aw"', '"AQ"', '"AA"', '"AAEAAQ"', '"AQAC"', '"AQABAQABAQAB"', '"AQAB="', '"AQAA"'),
    "ext": ("true", "false", '"yes"'),
}
TOKEN_NAMES = (
    *("nbf", "auth_time", "acr", "amr", "sid", "client_id", "scope", "cnf", "act", "nonce", "__proto__", "", "Exp"),
    "роль",
)
HEADER_NAMES = (
    "crit",
    "b64",
    "zip",
    "cty",
    "jku",
    "x5u",
    "jwk",
    "x5c",
    "x5t",
    "x5t#S256",
    "enc",
    "p2c",
    "iss",
    "Alg",
    "v",
)
KEY_NAMES = ("use", "key_ops", "alg", "kid", "ext", "d", "p", "oth", "x5c", "x5t", "iat", "exp", "k", "n", "__proto__")


def segment(raw: bytes) -> str:
    """The standard library's encoding, so that the tests do not lean on the code they test."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def pairs_of(members: Mapping[str, Json]) -> Pairs:
    return [
        (json.dumps(name, ensure_ascii=False), json.dumps(value, ensure_ascii=False)) for name, value in members.items()
    ]


class Mutator:
    """One seeded source of mutants: the same seed gives the same mutants on every machine and Python version."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 # repeatable on purpose
        self._structural: tuple[Callable[[Pairs, Sequence[str]], None], ...] = (
            *(self._other_value,) * 6,
            *(self._new_member,) * 4,
            self._repeated_member,
            self._lost_member,
            self._renamed_member,
            self._escaped_name,
            self._other_order,
        )

    # JSON objects

    def object_text(self, members: Mapping[str, Json], names: Sequence[str]) -> bytes:
        """A JSON text near that of `members`: other values, repeated, missing or foreign members, other spellings."""
        pairs = pairs_of(members)
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 3))):
            self.random.choice(self._structural)(pairs, names)
        return self._written(pairs)

    def _written(self, pairs: Pairs) -> bytes:
        roll = self.random.random()
        comma, colon = (", ", ": ") if roll < 0.3 else ("\n,\t", "\r: ") if roll < 0.4 else (",", ":")
        text = "{" + comma.join(f"{name}{colon}{value}" for name, value in pairs) + "}"
        roll = self.random.random()
        if roll < 0.03:
            return text.encode(self.random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")), "surrogatepass")
        if roll < 0.06:
            return self.random.choice(
                (f"[{text}]", f"{text}{text}", f"{text},", f" {text}\n", f"{text}\x00", f'"{text}"')
            ).encode()
        raw = text.encode()
        return self.bytes_of(raw) if roll < 0.2 else raw

    def _value_of(self, name: str, old: str) -> str:
        special = VALUES.get(name.strip('"'))
        if special is not None and self.random.random() < 0.75:
            return self.random.choice(special)
        roll = self.random.random()
        if roll < 0.15:
            return f"[{old}]"
        if roll < 0.3 and len(old) > 3 and old.startswith('"'):
            return old[:-1] + self.random.choice(("=", "A", " ", "\\u0041", "%00", "-")) + '"'
        if roll < 0.4 and len(old) > 3 and old.startswith('"'):
            at = self.random.randrange(1, len(old) - 1)
            return old[:at] + self.random.choice("ABCxyz019-_+/=. ") + old[at + 1 :]
        return self.random.choice(ANY_VALUE)

    def _other_value(self, pairs: Pairs, names: Sequence[str]) -> None:
        if pairs:
            at = self.random.randrange(len(pairs))
            pairs[at] = (pairs[at][0], self._value_of(*pairs[at]))

    def _new_member(self, pairs: Pairs, names: Sequence[str]) -> None:
        name = json.dumps(self.random.choice(names), ensure_ascii=False)
        pairs.insert(self.random.randrange(len(pairs) + 1), (name, self._value_of(name, '"value"')))

    def _repeated_member(self, pairs: Pairs, names: Sequence[str]) -> None:
        if pairs:
            name, value = self.random.choice(pairs)
            if self.random.random() < 0.5:
                value = self._value_of(name, value)
            pairs.insert(self.random.randrange(len(pairs) + 1), (self._escaped(name), value))

    def _lost_member(self, pairs: Pairs, names: Sequence[str]) -> None:
        if pairs:
            del pairs[self.random.randrange(len(pairs))]

    def _renamed_member(self, pairs: Pairs, names: Sequence[str]) -> None:
        if pairs:
            at = self.random.randrange(len(pairs))
            name = pairs[at][0]
            spelled = self.random.choice(
                (name.upper(), name[:-1] + ' "', name[:-1] + '\\u0000"', '"\\ud800"', name[1:-1], "5")
            )
            pairs[at] = (spelled, pairs[at][1])

    def _escaped_name(self, pairs: Pairs, names: Sequence[str]) -> None:
        if pairs:
            at = self.random.randrange(len(pairs))
            pairs[at] = (self._escaped(pairs[at][0]), pairs[at][1])

    def _escaped(self, name: str) -> str:
        if len(name) < 3 or name[1] == "\\" or self.random.random() < 0.5:
            return name
        return f'"\\u{ord(name[1]):04x}{name[2:]}'

    def _other_order(self, pairs: Pairs, names: Sequence[str]) -> None:
        self.random.shuffle(pairs)

    # Bytes and text

    def bytes_of(self, raw: bytes) -> bytes:
        """`raw` with one to three bytes changed, added, taken out or doubled, or cut."""
        text = bytearray(raw)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(text) + 1)
            roll = self.random.randrange(6)
            if roll == 0:
                text[at : at + 1] = bytes((self.random.randrange(256),))
            elif roll == 1:
                text[at:at] = self.random.choice(
                    (b'"', b"{", b"}", b"[", b",", b":", b"\\", b"\x00", b"\xff", b"0", b"e9", b".")
                )
            elif roll == 2:
                del text[at : at + self.random.randint(1, 4)]
            elif roll == 3:
                text[at:at] = text[at : at + self.random.randint(1, 12)]
            elif roll == 4 and at < len(text):
                text[at] ^= 1 << self.random.randrange(8)
            else:
                text[at:at] = self.random.choice(
                    (b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x80\xa8", b"/**/", b"\r\n")
                )
        return bytes(text)

    def encoded(self, raw: bytes) -> str:
        """base64url as it must be, or one of the spellings that lax decoders take for the same value."""
        text = segment(raw)
        if self.random.random() > 0.08:
            return text
        at = self.random.randrange(len(text) + 1)
        spellings: tuple[Callable[[], str], ...] = (
            lambda: urlsafe_b64encode(raw).decode(),
            lambda: b64encode(raw).decode(),
            lambda: b64encode(raw).decode().rstrip("="),
            lambda: text + "=",
            lambda: text + "====",
            lambda: text[:at] + self.random.choice((" ", "\n", "\t", "!", "%3D", "=", "\x00")) + text[at:],
            lambda: text[:-1] + chr(ord(text[-1]) + 1) if text else "A",
            lambda: text + "A",
            lambda: "",
        )
        return self.random.choice(spellings)()

    def token_text(self, token: str) -> str:
        """A token as it was signed, changed afterwards: nothing that comes out may be accepted unless it is equal."""
        head, body, tail = token.split(".")
        at = self.random.randrange(len(token))
        changes: tuple[Callable[[], str], ...] = (
            lambda: f"{head}.{body}.",
            lambda: f"{head}.{body}",
            lambda: f"{token}.",
            lambda: f".{token}",
            lambda: f"{token}.{tail}",
            lambda: f"{head}.{body}.{body}.{body}.{tail}",
            lambda: f"{body}.{head}.{tail}",
            lambda: f"{token}=",
            lambda: f"{token} ",
            lambda: f"\n{token}",
            lambda: f"{token}\u00e9",
            lambda: f"{token}\x00",
            lambda: token[:at] + token[at + 1 :],
            lambda: token[:at],
            lambda: token[:at] + self.random.choice("ABCabc012-_.+/= \n") + token[at + 1 :],
            lambda: token[:at] + self.random.choice("ABCabc012-_.+/= \n") + token[at:],
            lambda: f"{head}.{body}.{segment(bytes(64))}",
            lambda: f"{head}.{body}.{segment(self.random.randbytes(64))}",
            lambda: f"{head}.{body}.{tail[:-1]}{chr((ord(tail[-1]) ^ 1) & 127)}",
            lambda: f"{head}.{body}.{tail}AAAA",
            lambda: f"{head}.{body}.{tail[: len(tail) // 2]}",
            lambda: f"{segment(json.dumps({'alg': 'none'}).encode())}.{body}.",
            lambda: json.dumps({"protected": head, "payload": body, "signature": tail}),
            lambda: json.dumps({"payload": body, "signatures": [{"protected": head, "signature": tail}]}),
            lambda: json.dumps({"payload": body, "signatures": []}),
            lambda: "." * self.random.choice((0, 1, 2, 3, 4, 20_000)),
            token.upper,
            lambda: token + "A" * 16_384,
        )
        return self.random.choice(changes)()


class Mutant(NamedTuple):
    """One token text, with what it was made of; `signed` tells whether its signature is good over its own text."""

    text: str
    signed: bool
    header: bytes
    payload: bytes


def mutants(
    mutator: Mutator, count: int, header: Mapping[str, Json], claims: Mapping[str, Json], sign: Callable[[bytes], bytes]
) -> list[Mutant]:
    """`count` tokens near a good one: seven of eight signed correctly as they are, the others changed afterwards."""
    made = []
    for number in range(count):
        head, body = (json.dumps(members, separators=(",", ":")).encode() for members in (header, claims))
        which = mutator.random.random()
        if which < 0.45 or which > 0.9:
            body = mutator.object_text(claims, TOKEN_NAMES)
        if which >= 0.45:
            head = mutator.object_text(header, HEADER_NAMES)
        text = f"{mutator.encoded(head)}.{mutator.encoded(body)}"
        token = f"{text}.{segment(sign(text.encode()))}"
        if number % 8 == 7:
            plain = f"{segment(head)}.{segment(body)}"
            changed = mutator.token_text(f"{plain}.{segment(sign(plain.encode()))}")
            made.append(Mutant(changed, False, head, body))
        else:
            made.append(Mutant(token, True, head, body))
    return made


def set_texts(
    mutator: Mutator, count: int, jwks: Sequence[Mapping[str, Json]], secret: Mapping[str, Json]
) -> list[bytes]:
    """`count` JWK sets of good keys, mutants, secrets, unknown keys and what is no key; some names stand twice."""
    return [_set_text(mutator, jwks, secret) for _ in range(count)]


def _set_text(mutator: Mutator, jwks: Sequence[Mapping[str, Json]], secret: Mapping[str, Json]) -> bytes:
    random = mutator.random

    def entry() -> bytes:
        good = random.choice(jwks)
        makers: tuple[Callable[[], bytes], ...] = (
            *(lambda: json.dumps(good).encode(),) * 8,
            *(lambda: mutator.object_text(good, KEY_NAMES),) * 5,
            lambda: json.dumps({**good, "kid": random.choice(jwks)["kid"]}).encode(),
            lambda: json.dumps(
                {name: value for name, value in good.items() if name != random.choice(list(good))}
            ).encode(),
            lambda: json.dumps({**good, "use": random.choice(("enc", "sig"))}).encode(),
            lambda: json.dumps({**good, "kty": random.choice(("FUTURE", "oct", "EC", None))}).encode(),
            lambda: json.dumps({"kty": "FUTURE", "alg": "X", "kid": random.choice((good["kid"], "other"))}).encode(),
            lambda: json.dumps({"kty": "oct", "kid": "short", "k": "c2hvcnQ"}).encode(),
            lambda: json.dumps(secret).encode(),
            lambda: random.choice((b"5", b"null", b"[]", b"{}", json.dumps(json.dumps(good)).encode())),
        )
        return random.choice(makers)()

    entries = [entry() for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4)))]
    listed = b"[" + b",".join(entries) + b"]"
    roll = random.random()
    if roll < 0.82:
        return b'{"keys":' + listed + b"}"
    if roll < 0.88:
        return b'{"keys":' + listed + random.choice((b',"keys":[]}', b',"kid":"x"}', b',"kty":"EC"}', b',"Keys":[]}'))
    if roll < 0.94:
        return random.choice((listed, b'{"keys":{"0":' + listed + b"}}", b'{"keys":null}', b'{"jwks":' + listed + b"}"))
    return mutator.bytes_of(b'{"keys":' + listed + b"}")


def key_texts(mutator: Mutator, count: int, jwk: Mapping[str, Json]) -> list[bytes]:
    """`count` JWK texts near `jwk`."""
    return [mutator.object_text(jwk, KEY_NAMES) for _ in range(count)]
