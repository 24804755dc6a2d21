"""One function an endpoint: a request to a flow's arguments, and its result to a response."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from msgspec import UNSET

from jotgate.core.bearer import parse_authorization
from jotgate.server.device_tokens import DeviceToken
from jotgate.server.feed import Position
from jotgate.server.flows.account import account_of_bearer
from jotgate.server.flows.address import confirm_email_change, request_email_change
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import CLIENT_ID, Deps, public
from jotgate.server.flows.factors import (
    FactorAdded,
    add_passkey,
    begin_passkey,
    begin_totp,
    confirm_totp,
    make_recovery_codes,
    remove_passkey,
    remove_totp,
)
from jotgate.server.flows.leaving import leave
from jotgate.server.flows.login import LoggedIn, SecondStep, login
from jotgate.server.flows.passkeys import assertion_options, passkey_id
from jotgate.server.flows.password import change_password
from jotgate.server.flows.recovery import forgot_password, reset_password
from jotgate.server.flows.revoking import revoke_account, revoke_session, sessions_of
from jotgate.server.flows.second_step import finish_login, login_by_passkey
from jotgate.server.flows.sessions import logout, refresh, session_of
from jotgate.server.flows.signup import confirm_signup, request_signup, signup
from jotgate.server.flows.tokens import TokenPair
from jotgate.server.flows.undoing import undo
from jotgate.server.http.askers import check_scraper, origin_of_request
from jotgate.server.http.bodies import (
    AccountAnswer,
    AddressInput,
    CodeInput,
    ConfirmInput,
    DeleteInput,
    EmailInput,
    FactorAddedAnswer,
    FactorsAnswer,
    HealthAnswer,
    LoginInput,
    MailAnswer,
    OwnerInput,
    PasskeyInput,
    PasskeyLoginInput,
    PasskeyOptionsAnswer,
    PasskeyShown,
    PasswordInput,
    RecoveryCodesAnswer,
    ResetInput,
    SecondFactorAnswer,
    SecondFactorInput,
    SessionAnswer,
    SessionInput,
    SessionsAnswer,
    SignupAnswer,
    SignupInput,
    TokenAnswer,
    TotpAnswer,
    TotpConfirmInput,
    TotpShown,
    UndoInput,
)
from jotgate.server.http.browser import (
    check_no_browser,
    check_not_cross_site,
    check_own_page,
    clear_cookie,
    session_credential,
)
from jotgate.server.http.exchange import Headers, Request, Response, StreamResponse
from jotgate.server.http.inputs import parse_form_body, parse_json_body
from jotgate.server.http.logins import end_replaced, login_cookies, new_device_token, session_cookie
from jotgate.server.metrics import Counted
from jotgate.server.records import Account, CodePurpose, Family
from jotgate.server.refusals import (
    NOTHING_HERE,
    GrantRefused,
    MemberRefused,
    NotFound,
    ParameterRefused,
)
from jotgate.server.secret import Secret

_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")
_NO_CACHE: Final = (b"pragma", b"no-cache")  # RFC 6749 section 5.1
# The last one tells nginx, and those who follow it, to pass on every event at once.
_EVENT_STREAM: Final = ((b"content-type", b"text/event-stream"), _NO_STORE, (b"x-accel-buffering", b"no"))


async def post_signup(deps: Deps, request: Request) -> Response:
    """``POST /v1/signup``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, SignupInput)
    if deps.settings.signup == "verified":
        origin = origin_of_request(request)
        await request_signup(deps, form.email, form.password, deps.clock(), origin, before_hash=deps.limits.sign_up)
        return _json(202, MailAnswer())
    account = await signup(
        deps, form.email, form.password, deps.clock(), origin_of_request(request), before_hash=deps.limits.sign_up
    )
    return _json(201, SignupAnswer(account=_account_answer(account)))


async def post_signup_confirm(deps: Deps, request: Request) -> Response:
    """``POST /v1/signup/confirm``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, ConfirmInput)
    await confirm_signup(deps, form.code.reveal(), form.password, deps.clock(), origin_of_request(request))
    return _gone(deps, clear=False)


async def post_password_forgot(deps: Deps, request: Request) -> Response:
    """``POST /v1/password/forgot``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, AddressInput)
    await forgot_password(deps, form.email, deps.clock(), origin_of_request(request))
    return _json(202, MailAnswer())


async def post_password_reset(deps: Deps, request: Request) -> Response:
    """``POST /v1/password/reset``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, ResetInput)
    await reset_password(deps, form.code.reveal(), form.new_password, deps.clock(), origin_of_request(request))
    return _gone(deps, clear=False)


async def post_email(deps: Deps, request: Request) -> Response:
    """``POST /v1/email``."""
    form = parse_json_body(request, EmailInput)
    credential, _ = session_credential(request, form.refresh_token, deps.settings)
    now, origin = deps.clock(), origin_of_request(request)
    account, family = await session_of(deps, credential, now, origin)
    await request_email_change(
        deps, account, family, new_email=form.new_email, current=form.current_password, now=now, origin=origin
    )
    return _json(202, MailAnswer())


async def post_email_confirm(deps: Deps, request: Request) -> Response:
    """``POST /v1/email/confirm``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, CodeInput)
    await confirm_email_change(deps, form.code.reveal(), deps.clock(), origin_of_request(request))
    return _gone(deps, clear=False)


def undoing(purpose: CodePurpose) -> Callable[[Deps, Request], Awaitable[Response]]:
    """Return ``POST /v1/email/undo``, ``/v1/factors/undo`` or ``/v1/password/undo``."""

    async def post(deps: Deps, request: Request) -> Response:
        check_not_cross_site(request, deps.settings)
        form = parse_json_body(request, UndoInput)
        now, origin = deps.clock(), origin_of_request(request)
        await undo(deps, purpose, form.code.reveal(), now, origin, password=form.password)
        return _gone(deps, clear=False)

    return post


async def delete_account(deps: Deps, request: Request) -> Response:
    """``DELETE /v1/account``."""
    form = parse_json_body(request, DeleteInput)
    credential, is_cookie = session_credential(request, form.refresh_token, deps.settings)
    now, origin = deps.clock(), origin_of_request(request)
    account, family = await session_of(deps, credential, now, origin)
    await leave(deps, account, family, current=form.current_password, now=now, origin=origin)
    return _gone(deps, clear=is_cookie)


async def post_login(deps: Deps, request: Request) -> Response:
    """``POST /v1/login``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, LoginInput)
    in_body = _wants_body(deps, request, form.delivery)
    now, origin = deps.clock(), origin_of_request(request)
    devices = _devices(deps, request, form.device_token, now)
    done = await login(deps, form.email, form.password, now, origin, asker=request.asker, devices=devices)
    if isinstance(done, SecondStep):
        options = UNSET if done.passkey_options is None else dict(done.passkey_options)
        ticket = done.ticket.reveal()
        return _json(202, SecondFactorAnswer(ticket, done.expires_in_s, done.factors, passkey=options))
    return await _begun(deps, request, done, now, origin, in_body=in_body)


async def post_second_factor(deps: Deps, request: Request) -> Response:
    """``POST /v1/login/second-factor``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, SecondFactorInput)
    if (form.code is None) == (form.passkey is None):
        raise MemberRefused("missing_member", "The body takes either code or passkey.")
    in_body = _wants_body(deps, request, form.delivery)
    now, origin = deps.clock(), origin_of_request(request)
    done = await finish_login(
        deps,
        form.ticket,
        code=form.code,
        passkey=form.passkey,
        now=now,
        origin=origin,
        devices=_devices(deps, request, form.device_token, now),
    )
    return await _begun(deps, request, done, now, origin, in_body=in_body)


async def post_login_passkey_options(deps: Deps, request: Request) -> Response:
    """``POST /v1/login/passkey/options``."""
    check_not_cross_site(request, deps.settings)
    return _json(200, PasskeyOptionsAnswer(assertion_options(deps, None, deps.clock())))


async def post_login_passkey(deps: Deps, request: Request) -> Response:
    """``POST /v1/login/passkey``."""
    check_not_cross_site(request, deps.settings)
    form = parse_json_body(request, PasskeyLoginInput)
    in_body = _wants_body(deps, request, form.delivery)
    now, origin = deps.clock(), origin_of_request(request)
    devices = _devices(deps, request, form.device_token, now)
    done = await login_by_passkey(deps, form.passkey, now, origin, devices=devices)
    return await _begun(deps, request, done, now, origin, in_body=in_body)


async def get_factors(deps: Deps, request: Request) -> Response:
    """``GET /v1/factors``."""
    account, _ = await _reader(deps, request)
    factors = account.factors
    totp = None if factors.totp is None else TotpShown(factors.totp.created_at, factors.totp.used_at)
    passkeys = tuple(
        PasskeyShown(passkey_id(each), each.name, each.created_at, each.used_at) for each in factors.passkeys
    )
    return _json(200, FactorsAnswer(totp, passkeys, len(factors.recovery)))


async def post_totp(deps: Deps, request: Request) -> Response:
    """``POST /v1/factors/totp``."""
    form = parse_json_body(request, OwnerInput)
    account, family, now, origin, _ = await _owner(deps, request, form.refresh_token)
    made = await begin_totp(deps, account, family, current=form.current_password, now=now, origin=origin)
    return _json(200, TotpAnswer(made.secret, made.uri, made.qr_svg))


async def post_totp_confirm(deps: Deps, request: Request) -> Response:
    """``POST /v1/factors/totp/confirm``."""
    form = parse_json_body(request, TotpConfirmInput)
    account, family, now, origin, is_cookie = await _owner(deps, request, form.refresh_token)
    done = await confirm_totp(deps, account, family, code=form.code, now=now, origin=origin)
    return _factor_added(deps, request, done, now, in_body=not is_cookie)


async def delete_totp(deps: Deps, request: Request) -> Response:
    """``DELETE /v1/factors/totp``."""
    form = parse_json_body(request, OwnerInput)
    account, family, now, origin, _ = await _owner(deps, request, form.refresh_token)
    await remove_totp(deps, account, family, current=form.current_password, now=now, origin=origin)
    return _gone(deps, clear=False)


async def post_recovery_codes(deps: Deps, request: Request) -> Response:
    """``POST /v1/factors/recovery-codes``."""
    form = parse_json_body(request, OwnerInput)
    account, family, now, origin, _ = await _owner(deps, request, form.refresh_token)
    codes = await make_recovery_codes(deps, account, family, current=form.current_password, now=now, origin=origin)
    return _json(200, RecoveryCodesAnswer(tuple(code.reveal() for code in codes)))


async def post_passkey_options(deps: Deps, request: Request) -> Response:
    """``POST /v1/factors/passkeys/options``."""
    form = parse_json_body(request, OwnerInput)
    account, family, now, origin, _ = await _owner(deps, request, form.refresh_token)
    options = await begin_passkey(deps, account, family, current=form.current_password, now=now, origin=origin)
    return _json(200, PasskeyOptionsAnswer(options))


async def post_passkey(deps: Deps, request: Request) -> Response:
    """``POST /v1/factors/passkeys``."""
    form = parse_json_body(request, PasskeyInput)
    account, family, now, origin, is_cookie = await _owner(deps, request, form.refresh_token)
    done = await add_passkey(deps, account, family, credential=form.passkey, name=form.name, now=now, origin=origin)
    return _factor_added(deps, request, done, now, in_body=not is_cookie)


async def delete_passkey(deps: Deps, request: Request) -> Response:
    """``DELETE /v1/factors/passkeys/{id}``."""
    form = parse_json_body(request, OwnerInput)
    account, family, now, origin, _ = await _owner(deps, request, form.refresh_token)
    wanted = request.path.rpartition("/")[2]
    await remove_passkey(deps, account, family, wanted, current=form.current_password, now=now, origin=origin)
    return _gone(deps, clear=False)


async def post_refresh(deps: Deps, request: Request) -> Response:
    """``POST /v1/refresh``."""
    form = parse_json_body(request, SessionInput)
    credential, is_cookie = session_credential(request, form.refresh_token, deps.settings)
    pair = await refresh(deps, credential, deps.clock(), origin_of_request(request))
    return _token_response(deps, pair, in_body=not is_cookie)


async def post_logout(deps: Deps, request: Request) -> Response:
    """``POST /v1/logout``."""
    form = parse_json_body(request, SessionInput)
    credential, is_cookie = session_credential(request, form.refresh_token, deps.settings)
    await logout(deps, credential, deps.clock(), origin_of_request(request))
    return _gone(deps, clear=is_cookie)


async def post_logout_everywhere(deps: Deps, request: Request) -> Response:
    """``POST /v1/logout/everywhere``."""
    form = parse_json_body(request, SessionInput)
    credential, is_cookie = session_credential(request, form.refresh_token, deps.settings)
    origin = origin_of_request(request)
    account, _ = await session_of(deps, credential, deps.clock(), origin)
    await revoke_account(deps, account, origin)
    return _gone(deps, clear=is_cookie)


async def get_sessions(deps: Deps, request: Request) -> Response:
    """``GET /v1/sessions``."""
    account, current = await _reader(deps, request)
    sessions = await sessions_of(deps, account.id, deps.clock(), current=current)
    return _json(200, SessionsAnswer(tuple(_session_answer(each, current) for each in sessions)))


async def delete_session(deps: Deps, request: Request) -> Response:
    """``DELETE /v1/sessions/{id}``."""
    form = parse_json_body(request, SessionInput)
    credential, is_cookie = session_credential(request, form.refresh_token, deps.settings)
    now = deps.clock()
    origin = origin_of_request(request)
    account, current = await session_of(deps, credential, now, origin)
    sid = request.path.rpartition("/")[2]
    await revoke_session(deps, account, sid, now, origin)
    return _gone(deps, clear=is_cookie and sid == current.sid)


async def post_password(deps: Deps, request: Request) -> Response:
    """``POST /v1/password``."""
    form = parse_json_body(request, PasswordInput)
    credential, is_cookie = session_credential(request, form.refresh_token, deps.settings)
    now = deps.clock()
    origin = origin_of_request(request)
    account, family = await session_of(deps, credential, now, origin)
    done = await change_password(
        deps,
        account,
        family,
        current=form.current_password,
        new=form.new_password,
        now=now,
        origin=origin,
    )
    return _logged_in(deps, request, done, now, in_body=not is_cookie)


async def get_account(deps: Deps, request: Request) -> Response:
    """``GET /v1/account``."""
    account, _ = await _reader(deps, request)
    return _json(200, _account_answer(account))


async def _reader(deps: Deps, request: Request) -> tuple[Account, Family]:
    """Return who may read: the holder of an access token with the scope for it, or of the session cookie."""
    token = parse_authorization(request.one(b"authorization"))
    if token is not None:
        return await account_of_bearer(deps, token)
    credential, _ = session_credential(request, None, deps.settings)
    return await session_of(deps, credential, deps.clock(), origin_of_request(request))


async def post_token(deps: Deps, request: Request) -> Response:
    """``POST /oauth/token``: RFC 6749 section 6, for the public client ``web``."""
    form = parse_form_body(request)
    if "grant_type" not in form:
        raise GrantRefused("invalid_request", "grant_type is missing.")
    if form["grant_type"] != "refresh_token":
        raise GrantRefused("unsupported_grant_type", "The only grant type is refresh_token.")
    if form.get("client_id", CLIENT_ID) != CLIENT_ID or request.all(b"authorization"):
        raise GrantRefused("invalid_client", f"The only client is the public client {CLIENT_ID}; it has no secret.")
    if "refresh_token" not in form:
        raise GrantRefused("invalid_request", "refresh_token is missing.")
    check_no_browser(request, deps.settings)
    pair = await refresh(
        deps,
        Secret(form["refresh_token"]),
        deps.clock(),
        origin_of_request(request),
        client_id=form.get("client_id"),
        scopes=tuple(dict.fromkeys(form["scope"].split(" "))) if "scope" in form else None,
    )
    return _token_response(deps, pair, in_body=True)


async def get_health(deps: Deps, request: Request) -> Response:
    """``GET /healthz``: the process answers."""
    return _json(200, HealthAnswer(status="ok"))


async def get_ready(deps: Deps, request: Request) -> Response:
    """``GET /readyz``: the process can do its work: the database takes reads and writes, and the keys can be used."""
    deps.keys.check_usable()
    await deps.readiness.check()
    return _json(200, HealthAnswer(status="ok"))


async def get_metrics(deps: Deps, request: Request) -> Response:
    """``GET /metrics``: what was counted, for Prometheus; nothing where no token was set for it."""
    token, counted = deps.settings.metrics_token, deps.metrics
    if token is None or not isinstance(counted, Counted):
        raise NotFound(NOTHING_HERE)
    check_scraper(request, token)
    media_type, text = await asyncio.to_thread(counted.text, request.one(b"accept") or "")
    return Response(200, text, ((b"content-type", media_type.encode("ascii")), _NO_STORE))


async def get_revocations(deps: Deps, request: Request) -> Response:
    """``GET /revocations``: the signed snapshot; with ``?after=``, the events behind that position."""
    after = request.parameter("after")
    if after is not None:
        return Response(200, deps.feed.since(_position(after)), _EVENT_STREAM)
    # Off the event loop: to sign a hundred thousand entries takes tens of milliseconds.
    position, raw = await asyncio.to_thread(deps.feed.snapshot)
    etag = f'"{position}"'
    headers = ((b"etag", etag.encode("ascii")), (b"cache-control", b"no-cache"))
    if request.has_etag(etag):
        return Response(304, b"", headers)
    return Response(200, raw, ((b"content-type", b"application/revocations+jwt"), *headers))


async def get_revocations_stream(deps: Deps, request: Request) -> StreamResponse:
    """``GET /revocations/stream``: server-sent events from ``Last-Event-ID`` or ``?after=``, else from now on."""
    after = request.one(b"last-event-id") or request.parameter("after")
    position = None if after is None else _position(after)
    address = None if request.asker.known else request.asker.key
    return StreamResponse(await deps.feed.open_stream(position, address=address), _EVENT_STREAM)


def _position(text: str) -> Position:
    position = Position.parse(text)
    if position is None:
        raise ParameterRefused("A position in the feed is the id of one of its events.")
    return position


def _wants_body(deps: Deps, request: Request, delivery: Literal["cookie", "body"]) -> bool:
    """Whether the refresh token goes into the body; refuses whoever must not have it there, or not in a cookie."""
    if delivery == "body":
        check_no_browser(request, deps.settings)
    else:
        check_own_page(request, deps.settings)
    return delivery == "body"


def _devices(deps: Deps, request: Request, shown: Secret | None, now: int) -> tuple[DeviceToken, ...]:
    """All devices that the request shows: in its cookie, and in its body."""
    tokens = deps.keys.now.device_tokens
    named = None if shown is None or tokens is None else tokens.read(shown.reveal(), now=now)
    return (*request.asker.devices, *([] if named is None else [named]))


async def _begun(deps: Deps, request: Request, done: LoggedIn, now: int, origin: Origin, *, in_body: bool) -> Response:
    """Answer to a login, which takes the place of the session that the browser had."""
    await end_replaced(deps, request, now, origin)
    return _logged_in(deps, request, done, now, in_body=in_body)


async def _owner(
    deps: Deps, request: Request, refresh_token: Secret | None
) -> tuple[Account, Family, int, Origin, bool]:
    """Return who holds the session credential, when, from where, and whether it came as a cookie."""
    credential, is_cookie = session_credential(request, refresh_token, deps.settings)
    now, origin = deps.clock(), origin_of_request(request)
    account, family = await session_of(deps, credential, now, origin)
    return account, family, now, origin, is_cookie


def _factor_added(deps: Deps, request: Request, done: FactorAdded, now: int, *, in_body: bool) -> Response:
    codes = tuple(code.reveal() for code in done.recovery_codes)
    return _logged_in(deps, request, done.begun, now, in_body=in_body, recovery_codes=codes)


def _gone(deps: Deps, *, clear: bool) -> Response:
    """Return the answer to what ends something; where the session of a browser has ended, its cookie goes, too."""
    return Response(204, headers=(_NO_STORE, *([clear_cookie(deps.settings.issuer)] if clear else [])))


def _session_answer(family: Family, current: Family) -> SessionAnswer:
    return SessionAnswer(
        id=family.sid,
        current=family.sid == current.sid,
        device=family.device,
        address=family.address,
        methods=family.methods,
        auth_time=family.auth_time,
        created_at=family.created_at,
        seen_at=family.seen_at,
        idle_ends_at=family.idle_ends_at,
        ends_at=family.ends_at,
    )


def _account_answer(account: Account) -> AccountAnswer:
    shown = public(account)
    return AccountAnswer(id=shown.id, email=shown.email, scopes=shown.scopes, created_at=shown.created_at)


def _logged_in(
    deps: Deps, request: Request, done: LoggedIn, now: int, *, in_body: bool, recovery_codes: tuple[str, ...] = ()
) -> Response:
    """Answer with tokens, and with what tells this device from strangers the next time."""
    answer = _token_answer(done.tokens, in_body=in_body)
    headers: Headers = ()
    if not in_body:
        headers = login_cookies(deps, request, done, now)
    elif (made := new_device_token(deps, done, now)) is not None:
        answer = msgspec.structs.replace(answer, device_token=made.reveal())
    if recovery_codes:
        answer = FactorAddedAnswer(**msgspec.structs.asdict(answer), recovery_codes=recovery_codes)
    return _json(200, answer).with_headers(_NO_CACHE, *headers)


def _token_response(deps: Deps, pair: TokenPair, *, in_body: bool) -> Response:
    answer = _json(200, _token_answer(pair, in_body=in_body)).with_headers(_NO_CACHE)
    return answer if in_body else answer.with_headers(session_cookie(deps, pair))


def _token_answer(pair: TokenPair, *, in_body: bool) -> TokenAnswer:
    answer = TokenAnswer(
        access_token=pair.access_token.reveal(),
        token_type="Bearer",  # noqa: S106 - the name of a scheme
        expires_in=pair.access_expires_in_s,
        scope=" ".join(pair.scopes),
    )
    return msgspec.structs.replace(answer, refresh_token=pair.refresh_token.reveal()) if in_body else answer


def _json(status: int, answer: object) -> Response:
    return Response(status, msgspec.json.encode(answer), (_JSON, _NO_STORE))
