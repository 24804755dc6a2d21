"""The browser client, as pages load it from here: any origin may, and revalidates what it kept."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from jotgate.server.flows.deps import Deps
from jotgate.server.http.exchange import Headers, Request, Response

CLIENT_PATH: Final = "/client/v1.js"
# A page does not wait for a newer one; within a day after an upgrade everybody has it.
_CACHING: Final = (b"cache-control", b"public, max-age=3600, stale-while-revalidate=86400")


async def get_client(deps: Deps, request: Request) -> Response:
    """``GET /client/v1.js``."""
    module, etag = _module()
    headers: Headers = ((b"etag", etag.encode("ascii")), _CACHING)
    if request.has_etag(etag):
        return Response(304, b"", headers)
    return Response(200, module, ((b"content-type", b"text/javascript; charset=utf-8"), *headers))


@cache
def _module() -> tuple[bytes, str]:
    """Return the ES module and its entity tag (RFC 9110 section 8.8.3)."""
    raw = files("jotgate").joinpath("client", "v1.js").read_bytes()
    return raw, f'"{hashlib.sha256(raw).hexdigest()[:32]}"'
