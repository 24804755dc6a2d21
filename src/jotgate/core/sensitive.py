"""What names and values give away: secrets and personal data, told by their spelling, form and check digits.

Knows no token and no rule about what to do with a finding: that is `jotgate.core.lint`.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeAlias

from jotgate.core.encoding import MAX_JSON_DEPTH, decode_segment
from jotgate.core.errors import MalformedToken

JsonValue: TypeAlias = Any
Kind: TypeAlias = Literal["secret", "card_numbers", "ibans", "email_addresses", "phone_numbers"]


class Finding(NamedTuple):
    """What was found in which claim. Neither text contains a value."""

    kind: Kind
    claim: str
    message: str


def find_sensitive(claims: dict[str, Any], refused: tuple[str, ...], allowed: tuple[str, ...]) -> Iterator[Finding]:
    """Go through all names and values, nested ones too.

    `refused` and `allowed` are names in the form of `words_of`. What nests deeper than a token may is a finding.
    """
    for name, value in claims.items():
        yield from _in_member(name, value, "", MAX_JSON_DEPTH, (refused, allowed))


_Names: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]


def _in_member(name: str, value: JsonValue, parent: str, levels: int, names: _Names) -> Iterator[Finding]:
    shown = name
    faults: tuple[tuple[Kind, str], ...] = ()
    if len(name) >= _SHORTEST_IBAN or not name.isidentifier():
        faults = tuple(_faults(name, ""))
        if faults or len(name) > _LONGEST_SHOWN:
            shown = "*"  # the name is data itself, as in {"ada@example.com": "admin"}: so it is not repeated either
    label = f"{parent}.{shown}" if parent else shown
    for kind, what in faults:
        yield Finding(kind, label, f"The claim {label!r} has a name with {what}.")
    refused, allowed = names
    if refused or _HINTS.search(name.lower()):
        words = words_of(name)
        if words not in allowed and (
            words in refused or _is_refused(words) or ("://" in name and _is_refused_inside(name, words, names))
        ):
            message = f"The claim {label!r} is refused for its name: whoever holds a token can read it."
            yield Finding("secret", label, message)
    yield from _in_value(name, value, label, levels, names)


def _in_value(name: str, value: JsonValue, label: str, levels: int, names: _Names) -> Iterator[Finding]:
    if isinstance(value, str):
        if len(value) >= _SHORTEST_EMAIL:
            for kind, what in _faults(value, name):
                yield Finding(kind, label, f"The claim {label!r} holds {what}.")
    elif value is None:
        return
    elif isinstance(value, (int, float)):
        if (
            _LEAST_CARD <= value <= _MOST_CARD
            and value == int(value)
            and _is_card_number(str(int(value)))
            and not _is_identifier(name)
        ):
            yield Finding("card_numbers", label, f"The claim {label!r} holds a card number.")
    elif levels == 0:
        yield Finding("secret", label, f"The claim {label!r} nests too deeply to be looked at.")
    elif isinstance(value, dict):
        # Without kty, `n` must be text: {"n": 120, "p": 0.05} is statistics.
        is_key = "kty" in value or "crv" in value or isinstance(value.get("n"), str)
        if is_key and not _PRIVATE_MEMBERS.isdisjoint(value):
            yield Finding("secret", label, f"The claim {label!r} holds a private key.")
        for inner, member in value.items():
            yield from _in_member(inner, member, label, levels - 1, names)
    else:
        for position, member in enumerate(value):
            yield from _in_value(name, member, f"{label}[{position}]", levels - 1, names)


def _faults(text: str, name: str) -> Iterator[tuple[Kind, str]]:
    """Give what a text in a claim of that name holds."""
    if len(text) >= _SHORTEST_SECRET:
        # The searches are dear beside what makes them worth while.
        if (any(mark in text for mark in _PRIVATE_KEY_MARKS) and _PRIVATE_KEY.search(text)) or (
            '"kty' in text and _PRIVATE_JWK_TEXT.search(text)
        ):
            yield "secret", "a private key"
        if ("jgr_" in text and _REFRESH_TOKEN.search(text)) or (
            text.count(".") > 1 and any(map(_ends_in_jose_header, _COMPACT.findall(text)))
        ):
            yield "secret", "a token"
        if ("$" in text or "{" in text) and _PASSWORD_HASH.search(text):
            yield "secret", "a password hash"
    if "@" in text and _EMAIL.search(_URL_USER.sub("", text)):
        yield "email_addresses", "an e-mail address"
    if _DIGIT.search(text) is None:
        return
    if any(_is_card_number(match[1]) for match in _CARD.finditer(text)) and not _is_identifier(name):
        yield "card_numbers", "a card number"
    if any(_is_iban(text, match.start()) for match in _IBAN_START.finditer(text)) and not _is_identifier(name):
        yield "ibans", "an IBAN"
    if _PHONE.search(text) and not _is_identifier(name):
        yield "phone_numbers", "a phone number"


# Names

_LONGEST_SHOWN = 64
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def words_of(name: str) -> str:
    """Give the words of a name's last segment: `https://a.example/cardNumber` and `CARD_NUMBER` are "card number"."""
    return " ".join(_WORD.findall(name.rpartition("/")[2] or name)).lower()


# Most names need no closer look: each text that the pattern below finds is known by one of these.
_HINTS = re.compile(
    r"pass|pwd|secret|ssn|social|insurance|card|cv[cv]|iban|bban|bank|key|token|wort|cc[^a-z]*[dnp]|p[ai]n"
)

_REFUSED = re.compile(
    r"""\b(?:
        \w*(?:password|passwd|passphrase|passwort|kennwort|secret)s? | passcode | pwd
        | password(?:hash|salt) | pass\ (?:word|phrase|code)s?
        | ssn | social\ ?(?:security|insurance) | national\ insurance
        | (?:credit|debit|payment|bank)\ ?cards?
        | (?:card|cc)\ ?(?:no|num|number|numbers|data|details|pan|pin) | ccn | pan\ ?(?:no|num|numbers?)
        | cvv | cvc | i?bban | iban | bank\ ?accounts?
        | (?:private|api|access)\ ?keys?
        | (?:access|refresh|id|session|auth)\ ?tokens?
    )\b
    | \bcards?$ | ^p[ai]n$""",
    re.VERBOSE,
)
# `password_changed_at` and `has_password` speak about a password and are none.
_ABOUT = re.compile(
    r"""^(?:has|is|needs|requires|must|can|may)\b
    | \b(?:at|on|since|until|age|count|in|expires|expired|expiry|expiration|exp|changed|updated|created|rotated|verified
        | required|enabled|policy|status|type|kind|brand|version|ttl|method|id|ids|name)$""",
    re.VERBOSE,
)


def _is_refused(words: str) -> bool:
    return _REFUSED.search(words) is not None and _ABOUT.search(words) is None


def _is_refused_inside(name: str, last: str, names: _Names) -> bool:
    """Judge what a URL has between its host and its last segment: `https://a.example/password/v1`."""
    if _ABOUT.search(last):
        return False
    refused, allowed = names
    inner = map(words_of, name.split("/")[3:])
    return any(words not in allowed and (words in refused or _is_refused(words)) for words in inner)


_IDENTIFIER = re.compile(
    r"""\b(?:id | identifier | uid | uuid | guid | ulid | oid | tid | kid | jti | sub | sid | uti | aud | azp | iss
        | ref | reference | nonce | hash | digest | etag | fingerprint | thumbprint | serial | sku | ean | gtin | isbn
        | \w*(?:user|account|order|customer|tenant|client|session|request|device|object)id)s?(?:\ [0-9]+)*$""",
    re.VERBOSE,
)


def _is_identifier(name: str) -> bool:
    """Say whether the digits of a claim of this name mean nothing: `id`, `orderIds`, `trace_id_2`, `parent/sku`."""
    return _IDENTIFIER.search(words_of(name)) is not None


# Secrets

_SHORTEST_SECRET = 20
# What every text that the pattern below finds has in it, in its order.
_PRIVATE_KEY_MARKS = (
    "PRIVATE KEY", "PuTTY-User-Key-File-", "AGE-SECRET-KEY-1", "UFJJVkFURSBL", "UklWQVRFIEtF", "SVZBVEUgS0VZ",
    "CAQ", "AgE", "IBA",
)  # fmt: skip
# Armoured, also in base64, whose look depends on the position modulo 3; and the base64 of an unarmoured PKCS#8 key:
# SEQUENCE (its length in one, two or three bytes), INTEGER 0 or 1, SEQUENCE (RFC 5958 §2).
_PRIVATE_KEY = re.compile(
    r"""----[ ]?BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY | PuTTY-User-Key-File- | AGE-SECRET-KEY-1
    | (?:LS0tLS1CRUdJTi|LS0tQkVHSU4g|LS0tLUJFR0lOI)[A-Za-z0-9]{0,60}?(?:UFJJVkFURSBL|UklWQVRFIEtF|SVZBVEUgS0VZ)
    | (?<![A-Za-z0-9+/])M(?:[A-H][AEIMQUYcgkosw048]CAQ[AE]w | I[GH][\w+/-]AgE[AB]M | I[I-L][\w+/-]{2}[AQgw]IBA[DT])""",
    re.VERBOSE,
)
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"))
_PRIVATE_JWK_TEXT = re.compile(r'"(?:d|k|priv)\\*"\s*:\s*\\*"')  # quoted once or more often
# A base64url text with at least two more parts behind it: the header of JWS and JWE, and what is joined to it in front.
_COMPACT = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{10,}(?=\.[A-Za-z0-9_-]*\.)")
_ALG = re.compile(rb'"alg"\s*:')
_REFRESH_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])jgr_[A-Za-z0-9_-]{40}")
# PHC strings, bcrypt, crypt(3), Django's, Werkzeug's and LDAP's.
_PASSWORD_HASH = re.compile(
    r"""(?:
        \$(?:argon2(?:id|i|d)|scrypt|pbkdf2(?:-[a-z0-9]+)?|balloon|bcrypt(?:-sha256)?|2[abxy])\$
        | (?<![A-Za-z0-9$])(?:
            \$(?:[12567y]|gy|md5|sha1|apr1)\$
            | (?:argon2|bcrypt(?:_sha256)?|scrypt(?::[0-9]+){0,3}|pbkdf2(?:_sha(?:1|256|512)|:[a-z0-9]+(?::[0-9]+)?))\$
        )
    )[^\s$][^\s]{15}
    | \{(?:SSHA|SHA|SMD5|MD5|CRYPT|PBKDF2|ARGON2)[0-9A-Z-]*\}[A-Za-z0-9+/=$.]{16}""",
    re.VERBOSE,
)


def _ends_in_jose_header(text: str) -> bool:
    # Where a header begins in `token_eyJ…` is not told from its letters: the four ways to align it show all beginnings.
    for start in range(4):
        with suppress(MalformedToken):
            if _ALG.search(decode_segment(text[start:])):
                return True
    return False


# Personal data

_SHORTEST_EMAIL = 6
_DIGIT = re.compile(r"[0-9]")
# Searched from the @ on, in linear time.
_EMAIL = re.compile(r"(?<=[^\s@<>()\[\]\\,;:\"])@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2}")

# `https://user@host.example` names a user of that host; with a password behind the user it is worth a warning.
_URL_USER = re.compile(r"(?<=://)[^\s/?#@:]*@")

# Bare, or in the groups that are printed on cards; no part of a longer number, word or hyphenated name. It consumes
# nothing: digits in front of a card number, in groups as well, do not hide it.
_CARD = re.compile(
    r"(?:(?<![\w.,+-])|(?<=[^0-9],)|(?<=[0-9]{14},))(?=([0-9]{14,19}"
    r"|[0-9]{4}([ \u00a0\u202f./-])(?:[0-9]{4}\2[0-9]{4}\2[0-9]{4}(?:\2[0-9]{3})?|[0-9]{6}\2[0-9]{4,5}))"
    r"(?!\w|[.-][0-9]))"
)
# ISO/IEC 7812 prefixes and lengths in use. Visa's 13 and 19 digits and Maestro's other lengths are too rare to be told
# from barcodes and database keys; no brand is known by 18 digits.
_BRANDS = re.compile(
    r"""4[0-9]{15}                                                                       # Visa
    | (?:5[1-5][0-9]{2} | 222[1-9] | 22[3-9][0-9] | 2[3-6][0-9]{2} | 27[01][0-9] | 2720)[0-9]{12}  # Mastercard
    | 3[47][0-9]{13}                                                                     # American Express
    | (?:64[4-9][0-9] | 65[0-9]{2})[0-9]{12}                                             # Discover; 6011 as RuPay
    | 3(?:0[0-5] | [689][0-9])[0-9]{11}                                                  # Diners Club
    | 35(?:2[89] | [3-8][0-9])[0-9]{12}                                                  # JCB
    | 62[0-9]{14}(?:[0-9]{3})?                                                           # UnionPay
    | (?:5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 676[1-3])[0-9]{12}                    # Maestro
    | 220[0-4][0-9]{12}                                                                  # Mir
    | (?:508[5-9] | 60[0-9]{2} | 8[12][0-9]{2})[0-9]{12}                                 # RuPay""",
    re.VERBOSE,
)
_LEAST_CARD, _MOST_CARD = 10**13, 10**19
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def _is_card_number(text: str) -> bool:
    digits = "".join(_DIGIT.findall(text))
    if _BRANDS.fullmatch(digits) is None:
        return False
    # Luhn (ISO/IEC 7812-1 annex B)
    numbers = [int(digit) for digit in reversed(digits)]
    return (sum(numbers[::2]) + sum(_DOUBLED[number] for number in numbers[1::2])) % 10 == 0


# The IBAN registry (ISO 13616): country and length.
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
_SHORTEST_IBAN = min(_IBAN_LENGTHS.values())
_ALPHANUMERIC = re.compile(r"[A-Za-z0-9]+")
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?=[ \u00a0-]?[A-Za-z0-9])")


def _is_iban(text: str, start: int) -> bool:
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    if length == 0:
        return False
    written = text[start : start + length]
    separator = written[4]
    if separator in " \u00a0-":  # in groups of four
        written = text[start : start + length + (length - 1) // 4]
        iban = written.replace(separator, "") if set(written[4::5]) == {separator} else ""
    else:
        iban = written
    if len(iban) != length or not _ALPHANUMERIC.fullmatch(iban) or _ALPHANUMERIC.match(text, start + len(written)):
        return False
    if 2 * len(_DIGIT.findall(iban)) < length:  # random identifiers have more letters; no country's IBANs do
        return False
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


# International with its plus sign (ITU-T E.164), or as North Americans write theirs. Digits alone are no phone number.
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+[1-9](?:[ ./()-]{0,2}[0-9]){7,14}"
    r"|(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4})(?![\w-])"
)
