"""The `Authorization` header's Bearer scheme (RFC 6750 §2.1, RFC 9110 §11.6.2); looks at no token's inside."""

import re

from jotgate.core.errors import MalformedToken
from jotgate.core.jws import MAX_TOKEN_BYTES

# What nearly all values are, in one step.
_USUAL = re.compile(rb"Bearer ([A-Za-z0-9._~+/-]+=*)")
_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_CREDENTIALS = re.compile(r" +([A-Za-z0-9._~+/-]+=*)")


def parse_authorization(value: str | bytes | None) -> str | None:
    """Give the token of a `Bearer` header value; None if there is no value or it is of another scheme.

    Raises MalformedToken if the scheme is Bearer and what follows is not one token.
    """
    if value is None:
        return None
    if type(value) is bytes and len(value) <= MAX_TOKEN_BYTES and (usual := _USUAL.fullmatch(value)):
        return usual[1].decode("ascii")
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    text = text.strip(" \t")
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[0].lower() != "bearer":
        return None
    credentials = _CREDENTIALS.fullmatch(text, scheme.end()) if len(text) <= MAX_TOKEN_BYTES + 16 else None
    if credentials is None:
        raise MalformedToken("The Authorization header holds no single bearer token.")
    return credentials[1]
