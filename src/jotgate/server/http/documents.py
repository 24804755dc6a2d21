"""The documents that only change with the keys or the settings: key set, metadata, OpenAPI. Made once, sent often."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import fields

from jotgate.server.http.bodies import KeySetAnswer, MetadataAnswer, OAuthError, Problem
from jotgate.server.http.browser import cookie_name
from jotgate.server.http.exchange import Request, Response
from jotgate.server.http.inputs import secret_schema
from jotgate.server.http.routes import REVOCATIONS_PATH, REVOCATIONS_STREAM_PATH, ROUTES, Route
from jotgate.server.settings import Settings

JWKS_PATH: Final = "/.well-known/jwks.json"
FEED_KEYS_PATH: Final = "/.well-known/revocation-keys.json"
METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
OPENID_PATH: Final = "/.well-known/openid-configuration"
OPENAPI_PATH: Final = "/openapi.json"
# How long anybody may keep the other documents, which change with the settings alone.
MAX_AGE_S: Final = 300


class Document:
    """A JSON document with its ETag (RFC 9110 section 8.8.3)."""

    def __init__(self, value: object, *, max_age_s: int = MAX_AGE_S) -> None:
        body = msgspec.json.encode(value)
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        common = (
            (b"etag", etag.encode()),
            (b"cache-control", f"public, max-age={max_age_s}".encode()),
        )
        self._etag = etag
        self._whole = Response(200, body, ((b"content-type", b"application/json"), *common))
        self._unchanged = Response(304, b"", common)

    def response(self, request: Request) -> Response:
        """Return the document, or 304 where the client has it already."""
        return self._unchanged if request.has_etag(self._etag) else self._whole


def metadata(settings: Settings) -> MetadataAnswer:
    """Return the authorization server's metadata (RFC 8414 section 2): its URLs come from the issuer alone."""
    return MetadataAnswer(
        issuer=settings.issuer,
        token_endpoint=f"{settings.issuer}/oauth/token",
        jwks_uri=f"{settings.issuer}{JWKS_PATH}",
        scopes_supported=settings.default_scopes,
        response_types_supported=(),
        grant_types_supported=("refresh_token",),
        token_endpoint_auth_methods_supported=("none",),
        jotgate_revocations_uri=f"{settings.issuer}{REVOCATIONS_PATH}",
        jotgate_revocations_stream_uri=f"{settings.issuer}{REVOCATIONS_STREAM_PATH}",
        jotgate_revocations_jwks_uri=f"{settings.issuer}{FEED_KEYS_PATH}",
    )


_API: Final = tuple(route for route in ROUTES if not route.page)


def openapi(settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the JSON API, made from the route table and the bodies' types."""
    types: set[Any] = {Problem, OAuthError, KeySetAnswer, MetadataAnswer}
    types |= {kind for route in _API for kind in (route.input, route.output, route.accepted) if kind is not None}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    refs, schemas = msgspec.json.schema_components(
        ordered, schema_hook=secret_schema, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(ordered, refs, strict=True))
    for route in _API:
        if route.input is not None:
            schemas[route.input.__name__]["additionalProperties"] = False
    paths: dict[str, dict[str, Any]] = {}
    for route in _API:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    for path, kind, summary in (
        (JWKS_PATH, KeySetAnswer, "The public keys that verify access tokens (RFC 7517)"),
        (FEED_KEYS_PATH, KeySetAnswer, "The public keys that verify the revocation feed, and nothing else"),
        (METADATA_PATH, MetadataAnswer, "The server's metadata (RFC 8414)"),
        (OPENID_PATH, MetadataAnswer, "The same metadata, where OpenID clients look"),
    ):
        paths[path] = {"get": _document_operation(path, summary, schema_of[kind])}
    paths[OPENAPI_PATH] = {"get": _document_operation(OPENAPI_PATH, "This description", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jotgate",
            "version": "1",
            "summary": "Accounts, sessions and access tokens for APIs with a web front end.",
        },
        "servers": [{"url": settings.issuer}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookie_name(settings.issuer),
                    "description": "The session cookie; calls that use it also need the header Jotgate-Client: 1.",
                },
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


_SECURITY: Final[Mapping[str, list[dict[str, list[str]]]]] = {
    "none": [],
    # The empty requirement: the refresh token may stand in the body instead of the cookie.
    "session": [{"session": []}, {}],
    "session or bearer": [{"session": []}, {"bearer": []}],
}


def _operation(route: Route, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if route.media_type is not None:
        success["content"] = {route.media_type: {"schema": {"type": "string"}}}
    if route.output is not None:
        success["content"] = {"application/json": {"schema": schema_of[route.output]}}
    operation: dict[str, Any] = {
        "operationId": _operation_id(route.method, route.path),
        "summary": route.summary,
        "security": _SECURITY[route.credential],
        "responses": {str(route.success): success},
    }
    if route.accepted is not None:
        told = {"application/json": {"schema": schema_of[route.accepted]}}
        operation["responses"]["202"] = {"description": "A mail goes out.", "content": told}
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": said}
        for name, said in route.parameters.items()
    ]
    if route.path.endswith("/{id}"):
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if parameters:
        operation["parameters"] = parameters
    if route.input is not None:
        media_type = "application/x-www-form-urlencoded" if route.form else "application/json"
        operation["requestBody"] = {
            "required": any(field.required for field in fields(route.input)),
            "content": {media_type: {"schema": schema_of[route.input]}},
        }
    if route.problems:
        error, media_type = (OAuthError, "application/json") if route.form else (Problem, "application/problem+json")
        operation["responses"]["default"] = {
            "description": f"Refused; the code is one of: {', '.join(sorted(route.problems))}.",
            "content": {media_type: {"schema": schema_of[error]}},
        }
    return operation


def _document_operation(path: str, summary: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "operationId": _operation_id("GET", path),
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": "The document.", "content": {"application/json": {"schema": schema}}},
            "304": {"description": "Unchanged since the ETag that was sent."},
        },
    }


def _operation_id(method: str, path: str) -> str:
    words = re.sub(r"\.well-known|\.json|[{}]", "", path).replace("-", "/").split("/")
    return method.lower() + "".join(word.capitalize() for word in words if word)
