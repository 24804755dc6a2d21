"""Hashes of other programs: the known forms are kept as they are, everything else is a typed refusal."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server.rules.foreign_hashes import (
    MAX_PBKDF2_ITERATIONS,
    Bcrypt,
    Pbkdf2,
    Scrypt,
    UnknownHash,
    parse_foreign,
    read_foreign,
)
from jotgate.server.rules.hashing import stored_parameters

BCRYPT = "$2b$12$" + "abcdefghijklmnopqrstu." + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123."
KEY = bytes(range(64))
HEX, KEY_64, KEY_32, KEY_20 = KEY.hex(), *(base64.b64encode(KEY[:size]).decode() for size in (64, 32, 20))
SALT_HEX = "00112233445566778899aabbccddeeff"
TAG = "$c29tZXNhbHQxMjM0NTY$" + "A" * 43
KNOWN = {
    "bcrypt 2a": BCRYPT.replace("$2b$", "$2a$"),
    "bcrypt 2b": BCRYPT,
    "bcrypt 2y": BCRYPT.replace("$2b$", "$2y$"),
    "bcrypt of a digest": "bcrypt_sha256$" + BCRYPT,
    "Werkzeug's scrypt": f"scrypt:32768:8:1$saltsalt${HEX}",
    "Werkzeug's PBKDF2": f"pbkdf2:sha256:600000$saltsalt${HEX[:64]}",
    "Werkzeug's PBKDF2 with SHA-512": f"pbkdf2:sha512:210000$saltsalt${HEX}",
    "Django's scrypt": f"scrypt$16384$saltsalt$8$5${KEY_64}",
    "Django's PBKDF2": f"pbkdf2_sha256$1200000$saltsalt${KEY_32}",
    "Django's PBKDF2 with SHA-1": f"pbkdf2_sha1$1200000$saltsalt${KEY_20}",
    "better-auth's": f"better-auth:{SALT_HEX}:{HEX}",
    "Argon2i": f"$argon2i$v=19$m=65536,t=3,p=4{TAG}",
    "Django's Argon2": f"$argon2id$v=19$m=102400,t=2,p=8{TAG}",
    "Argon2d": f"$argon2d$v=19$m=4096,t=3,p=1{TAG}",
    "Argon2id": f"$argon2id$v=19$m=19456,t=2,p=1{TAG}",
}
BAD = {
    "nothing": "",
    "a password": "correct horse battery staple",
    "MD5": "5f4dcc3b5aa765d61d8327deb882cf99",
    "Django's MD5": "md5$saltsalt$5f4dcc3b5aa765d61d8327deb882cf99",
    "crypt's SHA-512": "$6$saltsalt$" + "a" * 86,
    "the bcrypt of a bug": BCRYPT.replace("$2b$", "$2x$"),
    "bcrypt that is cut": BCRYPT[:-1],
    "bcrypt with more": BCRYPT + "a",
    "bcrypt with a line end": BCRYPT + "\n",
    "bcrypt with bits left over in the salt": BCRYPT[:28] + "a" + BCRYPT[29:],
    "bcrypt with bits left over in the key": BCRYPT[:-1] + "/",
    "bcrypt that costs too little": BCRYPT.replace("$12$", "$03$"),
    "bcrypt that costs too much": BCRYPT.replace("$12$", "$15$"),
    "two names of Django": "bcrypt$bcrypt$" + BCRYPT,
    "a name of Django before another form": f"bcrypt$pbkdf2_sha256$1000$saltsalt${KEY_32}",
    "scrypt with too much memory": f"scrypt:131072:8:1$saltsalt${HEX}",
    "scrypt with too much work": f"scrypt:32768:8:5$saltsalt${HEX}",
    "scrypt with too many lanes": f"scrypt:2:1:17$saltsalt${HEX}",
    "scrypt whose N is no power": f"scrypt:32767:8:1$saltsalt${HEX}",
    "scrypt whose N is too large for its r": f"scrypt:65536:1:1$saltsalt${HEX}",
    "scrypt without r": f"scrypt:32768:0:1$saltsalt${HEX}",
    "scrypt with half a key": f"scrypt:32768:8:1$saltsalt${HEX[:64]}",
    "scrypt without a salt": f"scrypt:32768:8:1$${HEX}",
    "scrypt in another order": f"scrypt$saltsalt$16384$8$1${KEY_64}",
    "PBKDF2 with too many iterations": f"pbkdf2_sha256${MAX_PBKDF2_ITERATIONS + 1}$saltsalt${KEY_32}",
    "PBKDF2 without iterations": f"pbkdf2:sha256$saltsalt${HEX[:64]}",
    "PBKDF2 with 0 iterations": f"pbkdf2:sha256:0$saltsalt${HEX[:64]}",
    "PBKDF2 with MD5": f"pbkdf2:md5:600000$saltsalt${HEX[:32]}",
    "PBKDF2 with a key of another digest": f"pbkdf2_sha256$600000$saltsalt${KEY_20}",
    "base64 with bits left over": f"pbkdf2_sha1$600000$saltsalt${KEY_20[:-2]}N=",
    "base64 of no length": f"pbkdf2_sha1$600000$saltsalt${'A' * 25}",
    "base64 without its end": f"pbkdf2_sha1$600000$saltsalt${KEY_20[:-1]}",
    "digits that are none": f"pbkdf2_sha256$\N{ARABIC-INDIC DIGIT THREE}$saltsalt${KEY_32}",
    "a salt that is longer than any": f"pbkdf2_sha256$1000${'a' * 129}${KEY_32}",
    "better-auth's with half a key": f"{SALT_HEX}:{HEX[:64]}",
    "better-auth's in capitals": f"{SALT_HEX}:{HEX.upper()}",
    "Argon2 with too much memory": f"$argon2i$v=19$m=102401,t=1,p=1{TAG}",
    "more than Django's Argon2": f"argon2$argon2id$v=19$m=102400,t=3,p=8{TAG}",
    "Argon2 of another version": f"$argon2i$v=16$m=4096,t=3,p=1{TAG}",
    "Argon2 of no kind": f"$argon2x$v=19$m=4096,t=3,p=1{TAG}",
}


@pytest.mark.parametrize("text", KNOWN.values(), ids=KNOWN.keys())
def test_a_known_form_is_kept_as_it_is(text: str) -> None:
    assert parse_foreign(text) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("bcrypt$" + BCRYPT, BCRYPT),
        ("argon2" + KNOWN["Argon2id"], KNOWN["Argon2id"]),
        (f"{SALT_HEX}:{HEX}", f"better-auth:{SALT_HEX}:{HEX}"),
    ],
)
def test_names_that_say_nothing_are_dropped_and_who_has_none_gets_one(text: str, kept: str) -> None:
    assert parse_foreign(text) == kept == parse_foreign(kept)


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("bcrypt 2y", Bcrypt(KNOWN["bcrypt 2y"], of_digest=False)),
        ("bcrypt of a digest", Bcrypt(BCRYPT, of_digest=True)),
        ("Werkzeug's scrypt", Scrypt(32_768, 8, 1, b"saltsalt", KEY)),
        ("Django's scrypt", Scrypt(16_384, 8, 5, b"saltsalt", KEY)),
        ("better-auth's", Scrypt(16_384, 16, 1, SALT_HEX.encode(), KEY, in_nfkc=True)),
        ("Werkzeug's PBKDF2", Pbkdf2("sha256", 600_000, b"saltsalt", KEY[:32])),
        ("Django's PBKDF2 with SHA-1", Pbkdf2("sha1", 1_200_000, b"saltsalt", KEY[:20])),
        ("Argon2i", None),
        ("Argon2id", None),
    ],
)
def test_what_a_kept_hash_says_is_read(form: str, read: object) -> None:
    assert read_foreign(KNOWN[form]) == read


def test_argon2_of_other_kinds_has_no_parameters_that_could_be_those_of_now() -> None:
    assert stored_parameters(KNOWN["Argon2id"]) is not None
    assert stored_parameters(KNOWN["Argon2i"]) is None
    assert stored_parameters(KNOWN["Argon2d"]) is None


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_everything_else_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UnknownHash) as caught:
        parse_foreign(text)
    assert (caught.value.code, caught.value.status) == ("unknown_password_hash", 422)
    for part in text.split("$")[-2:]:
        assert len(part) < 8 or part not in str(caught.value)
    assert read_foreign(text) is None


@given(
    st.text() | st.sampled_from([*KNOWN.values()]).flatmap(lambda text: st.permutations(text.split("$")).map("$".join))
)
def test_any_text_is_kept_or_refused(text: str) -> None:
    try:
        kept = parse_foreign(text)
    except UnknownHash:
        return
    assert parse_foreign(kept) == kept
