"""A password becomes a session."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from msgspec import Struct, structs

from jotgate.core.encoding import encode_segment
from jotgate.server.device_tokens import DeviceToken
from jotgate.server.factor_keys import TICKET_LIFE_S
from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import CLIENT_ID, Deps
from jotgate.server.flows.mailing import FORGOT_PATH, link, make_mail
from jotgate.server.flows.passkeys import assertion_options
from jotgate.server.flows.signup import remind_of_signup
from jotgate.server.flows.tokens import TokenPair, make_pair
from jotgate.server.limits import Asker
from jotgate.server.mail.messages import MailKind
from jotgate.server.records import Account, AuditName, Family
from jotgate.server.refusals import Busy, InvalidCredentials, TooManyRequests
from jotgate.server.rules.accounts import email_identity, normalise_email, normalise_password
from jotgate.server.rules.hashing import NO_PASSWORD
from jotgate.server.rules.refresh import idle_end
from jotgate.server.secret import Secret
from jotgate.server.store import StoreError

FactorKind = Literal["passkey", "totp", "recovery_code"]
_NEWCOMER_S: Final = 3_600


class Proof(Struct, frozen=True):
    """How somebody proved who they are (RFC 8176), and when."""

    methods: tuple[str, ...]
    at: int


class SecondStep(Struct, frozen=True):
    """What a right password gives where it is not enough."""

    ticket: Secret
    """Shown with the second factor."""
    expires_in_s: int
    factors: tuple[FactorKind, ...]
    passkey_options: Mapping[str, Any] | None
    """For ``navigator.credentials.get``, where the account has passkeys."""


class LoggedIn(Struct, frozen=True):
    """What a login gives."""

    tokens: TokenPair
    account: Account
    """As it is now."""
    device: DeviceToken | None = None
    """The one that it was done with, where the account knew that already."""


async def login(
    deps: Deps,
    email: str,
    password: Secret,
    now: int,
    origin: Origin,
    *,
    asker: Asker,
    devices: Sequence[DeviceToken] = (),
) -> LoggedIn | SecondStep:
    """Begin a session: always a new one, with an id of its own (OWASP ASVS 7.2.4); or ask for the second factor first.

    An address without an account costs the same time and gets the same answer as a wrong password, and has its limits.

    Args:
        asker: whose guess it is, if it is one.
        devices: all that the asker has shown.

    Raises:
        InvalidEmail, PasswordTooLong: what was given cannot be anybody's.
        InvalidCredentials: unknown account or wrong password.
        TooManyRequests: there were too many guesses, or sessions, of late.
        Busy, StoreError: not now.
    """
    address = normalise_email(email)
    identity = email_identity(address)
    text = normalise_password(password.reveal())
    # Once, whether there is such an account or not: a second look would tell.
    account = await deps.store.account_by_email(address) if devices else None
    device = None
    if account is not None:
        device = next((each for each in devices if each.is_for(account.id, account.password_hash)), None)
    try:
        guess = await deps.limits.guess(identity, asker, device)
    except TooManyRequests as refused:
        # Not whose account it is about: to look that up would be work for somebody who is refused.
        limited = ", ".join(refused.decision.violated)
        deps.audit.put(line("login_failed", now, origin, actor="anonymous", detail={"limited": limited}))
        raise
    try:
        if not devices:
            account = await deps.store.account_by_email(address)
        deps.passwords.check_room(stranger=not guess.by_device)
        fits = await deps.passwords.verify(account.password_hash if account else None, text)
    except (Busy, StoreError):
        await guess.was_none()
        raise
    # That an account is disabled is told nobody, not even with its password.
    if account is None or not fits or account.disabled_at is not None:
        usable = account is None or deps.passwords.is_usable(account.password_hash)
        if account is not None and not usable and account.password_hash != NO_PASSWORD:
            deps.log.error("password_hash_unusable", account=account.id)
        await guess.was_wrong()
        _refuse(deps, account, now, origin)
        if deps.settings.signup == "verified":
            deps.errands.put(partial(remind_of_signup, deps, address, now))
        raise InvalidCredentials("The e-mail address or the password is wrong.")
    if account.factors.asked_for:
        await guess.was_none()  # and no session: that takes more
        await deps.limits.first_step(account.id, device)
        if not deps.passwords.is_current(account.password_hash):
            await _rehash(deps, account, text)
        return _ask_second(deps, account, now)
    try:
        begun = await begin_session(deps, account, text, now, origin)
    except (Busy, StoreError):
        await guess.was_none()
        raise
    except BaseException:  # the operator's hook, say, or nobody waits any more: the password was right all the same
        await asyncio.shield(guess.was_right())
        raise
    if begun is None:
        await guess.was_wrong()
        # The password was changed while the old one was being checked, and that ends what the old one began.
        _refuse(deps, account, now, origin)
        raise InvalidCredentials("The e-mail address or the password is wrong.")
    await guess.was_right()
    if device is None:
        await tell_owner(deps, begun.account, now, origin)
    return structs.replace(begun, device=device)


def _ask_second(deps: Deps, account: Account, now: int) -> SecondStep:
    ticket = deps.keys.factors.make_ticket("login", account, now=now, random=deps.random)
    deps.log.info("second_factor_asked", account=account.id)
    return second_step(deps, account, Secret(encode_segment(ticket)), now, expires_in_s=TICKET_LIFE_S)


def second_step(deps: Deps, account: Account, ticket: Secret, now: int, *, expires_in_s: int) -> SecondStep:
    """Return what an account asks for besides its password.

    Raises:
        Busy: not now.
    """
    factors = account.factors
    kinds: list[FactorKind] = []
    can_use_passkeys = bool(factors.passkeys) and deps.settings.passkey_domain_name is not None
    if can_use_passkeys:
        kinds.append("passkey")
    if factors.totp is not None:
        kinds.append("totp")
    if factors.recovery:
        kinds.append("recovery_code")
    options = assertion_options(deps, account, now) if can_use_passkeys else None
    return SecondStep(ticket, expires_in_s, tuple(kinds), options)


async def tell_owner(deps: Deps, account: Account, now: int, origin: Origin) -> None:
    """Ask the owner of an account whether it was them who logged in from a device that had not done so before.

    Three times at once and once a day at most, since programs may show no device; and not right after the sign-up. The
    login is done, whatever comes of it.
    """
    if now - account.created_at < _NEWCOMER_S or not await deps.limits.new_device(account.id):
        return
    await ask_whether_it_was_them(deps, "new_device", account, now, origin)


async def ask_whether_it_was_them(deps: Deps, kind: MailKind, account: Account, now: int, origin: Origin) -> None:
    """Send the owner of an account a mail about a login, from where it came, and where to go if it was somebody else.

    What it is about is done, whatever comes of the mail.
    """
    told = {"device": origin.device, "address": origin.address, "at": now, "link": link(deps, FORGOT_PATH)}
    try:
        await deps.store.queue(mails=[make_mail(deps, kind, account.email, now, **told)])
    except (Busy, StoreError) as error:
        deps.log.warning("owner_untold", account=account.id, about=kind, code=error.code)
        return
    deps.tell_courier()


def _refuse(deps: Deps, account: Account | None, now: int, origin: Origin) -> None:
    """Tell log and audit trail. Of an unknown address not a letter: a person may have typed the password into it."""
    known = None if account is None else account.id
    deps.log.info("login_refused", account=known)
    deps.audit.put(line("login_failed", now, origin, actor="anonymous", account=known or ""))


async def begin_session(
    deps: Deps,
    account: Account,
    password: str,
    now: int,
    origin: Origin,
    *,
    after: AuditName = "login",
    before: Family | None = None,
) -> LoggedIn | None:
    """Begin a session of an account whose normalised password has just been checked; None where it was changed since.

    A hash that was made with other parameters than those of now is replaced afterwards.

    Args:
        after: what begins it.
        before: the session in whose place it comes: a second factor that this began with stays, with the time of that.

    Raises:
        Busy, StoreError: not now.
    """
    proof = Proof(("pwd",), now)
    if before is not None and "mfa" in before.methods:
        proof = Proof(tuple(dict.fromkeys(("pwd", *before.methods))), before.auth_time)
    family = await _add_family(deps, account, proof, now, origin, after)
    if family is None:
        # Another login may just have replaced the hash, which changes no password.
        current = await recheck(deps, account, password)
        if current is None:
            return None
        account = current
        family = await _add_family(deps, account, proof, now, origin, after)
        if family is None:
            return None
    deps.log.info("login", account=account.id, sid=family.sid)
    pair = await make_pair(deps, account, family, now)
    if not deps.passwords.is_current(account.password_hash):
        account = await _rehash(deps, account, password)
    return LoggedIn(pair, account)


async def begin_proven(
    deps: Deps,
    account: Account,
    methods: tuple[str, ...],
    now: int,
    origin: Origin,
    *,
    after: AuditName = "login",
) -> LoggedIn | None:
    """Begin a session of an account that was proved otherwise than by a password in hand.

    None where its password or address was changed since, or it was disabled.

    Args:
        methods: how (RFC 8176).
        after: what begins it.

    Raises:
        Busy, StoreError: not now.
    """
    family = await _add_family(deps, account, Proof(methods, now), now, origin, after)
    if family is None:
        # Another login may just have replaced the hash, which changes no password.
        current = await deps.store.account_by_id(account.id)
        if current is None or current.credential_version != account.credential_version:
            return None
        account = current
        family = await _add_family(deps, account, Proof(methods, now), now, origin, after)
        if family is None:
            return None
    deps.log.info("login", account=account.id, sid=family.sid)
    return LoggedIn(await make_pair(deps, account, family, now), account)


async def _add_family(
    deps: Deps, account: Account, proof: Proof, now: int, origin: Origin, after: AuditName
) -> Family | None:
    family = _new_family(deps, account, proof, now, origin)
    told: dict[str, object] = {}
    if after != "login":
        told["after"] = after
    if proof.methods != ("pwd",):
        told["methods"] = proof.methods
    detail = told or None
    audit = line("login", now, origin, account=account.id, sid=family.sid, detail=detail)
    added = await deps.store.add_family(family, expected_hash=account.password_hash, audit=audit)
    return family if added else None


async def recheck(deps: Deps, account: Account, password: str) -> Account | None:
    """Read an account again whose hash is no longer the one that was checked; None unless the password fits it still.

    Raises:
        Busy, StoreError: not now.
    """
    current = await deps.store.account_by_id(account.id)
    if current is None or current.password_hash == account.password_hash:
        return None
    return current if await deps.passwords.verify(current.password_hash, password) else None


async def _rehash(deps: Deps, account: Account, password: str) -> Account:
    """Replace the hash by one with the parameters of now, if that can be: the login has succeeded anyway.

    Returns the account as it is then.
    """
    try:
        password_hash = await deps.passwords.hash(password)
        done = await deps.store.replace_hash(
            account.id, expected_hash=account.password_hash, password_hash=password_hash
        )
    except (Busy, StoreError) as error:
        deps.log.warning("rehash_failed", account=account.id, code=error.code)
        return account
    if not done:
        return account
    deps.log.info("password_rehashed", account=account.id)
    return structs.replace(account, password_hash=password_hash)


def _new_family(deps: Deps, account: Account, proof: Proof, now: int, origin: Origin) -> Family:
    ends_at = now + deps.settings.session_absolute_s
    return Family(
        id=deps.random(16),
        sid=encode_segment(deps.random(16)),
        account_id=account.id,
        client_id=CLIENT_ID,
        scopes=account.scopes,
        mac_kid=deps.refresh_tokens.active,
        auth_time=proof.at,
        methods=proof.methods,
        address=origin.address,
        device=origin.device,
        created_at=now,
        seen_at=now,
        idle_ends_at=idle_end(now, deps.settings.session_idle_s, ends_at),
        ends_at=ends_at,
    )
