"""Which addresses are taken at all, and where an issuer's metadata may lie (RFC 8414); text only, it asks nobody."""

import re
from urllib.parse import urlsplit

_HTTPS_URL = re.compile(r"https://[!-~]+")  # printable ASCII: nothing that two parsers could read in two ways


def check_https_url(url: str, *, query: bool = True) -> None:
    """Refuse what is not a plain absolute https URL.

    Raises:
        ValueError: another scheme (http on loopback included), no host, user names, fragments, a port out of range,
            characters outside printable ASCII, a backslash; with `query=False` a query as well.
    """
    if not _HTTPS_URL.fullmatch(url) or "\\" in url or "#" in url:
        raise ValueError("is not a plain https URL")
    parts = urlsplit(url)  # ValueError for brackets that do not match
    _ = parts.port  # ValueError for a port out of range
    if not parts.hostname:
        raise ValueError("names no host")
    if "@" in parts.netloc:
        raise ValueError("carries a user name")
    if "?" in url and not query:
        raise ValueError("has a query")


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Return where an issuer's metadata may lie, in the order in which to ask.

    RFC 8414 section 3.1 puts the well-known part between host and path, OpenID Connect Discovery 1.0 section 4 at the
    end; an app mounted under a prefix can often answer only there, for either document.
    """
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    candidates = (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}{path}/.well-known/oauth-authorization-server",
    )
    return tuple(dict.fromkeys(candidates))
