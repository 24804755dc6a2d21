"""Passkeys between WebAuthn and the account: what authenticators are asked, and whose proof it is that comes back."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from jotgate.core.encoding import encode_segment
from jotgate.server.factor_keys import TICKET_LIFE_S, Ticket, TicketFor
from jotgate.server.flows.deps import Deps
from jotgate.server.passkeys import (
    REFUSED,
    NewPasskey,
    authentication_options,
    check_assertion,
    check_registration,
    read_assertion,
    read_challenge,
    registration_options,
)
from jotgate.server.records import Account, Factors, Passkey
from jotgate.server.refusals import PasskeyRefused, PasskeysUnavailable
from jotgate.server.rules.factors import spend

METHODS: Final = ("pop", "mfa")
"""RFC 8176: possession of a key, which its owner unlocked by knowing or being something."""


class Assertion(Struct, frozen=True):
    """A proof that was found good, and still has to be written down: what ``use`` refuses was shown before."""

    account: Account
    passkey: Passkey
    sign_count: int
    challenge: bytes
    ticket: Ticket

    def use(self, known: Account, now: int) -> Factors:
        """Return the account's factors with this proof used up, decided on the account as it is then.

        Raises:
            PasskeyRefused: it was used, or the passkey is gone.
            Busy: not now.
        """
        stored = next((each for each in known.factors.passkeys if each.id == self.passkey.id), None)
        if stored is None or stored.public_key != self.passkey.public_key or known.disabled_at is not None:
            raise PasskeyRefused(REFUSED)
        if (stored.sign_count or self.sign_count) and self.sign_count <= stored.sign_count:
            raise PasskeyRefused(REFUSED)
        spent = spend(known.factors, self.challenge, expires_at=self.ticket.expires_at, now=now)
        if spent is None:
            raise PasskeyRefused(REFUSED)
        used = replace(stored, sign_count=self.sign_count, used_at=now)
        passkeys = tuple(used if each.id == used.id else each for each in spent.passkeys)
        return replace(spent, passkeys=passkeys)


def assertion_options(deps: Deps, account: Account | None, now: int) -> dict[str, Any]:
    """Return what a browser asks authenticators for: those of an account, or, without one, whichever know this server.

    Raises:
        PasskeysUnavailable: they cannot work here.
        Busy: not now.
    """
    challenge = deps.keys.factors.make_ticket("passkey_login", account, now=now, random=deps.random)
    return authentication_options(
        rp_id=_domain(deps),
        challenge=challenge,
        allow=() if account is None else _known(account),
        timeout_s=TICKET_LIFE_S,
    )


async def prove(
    deps: Deps,
    credential: Mapping[str, Any],
    now: int,
    *,
    account: Account | None = None,
) -> Assertion:
    """Check what an authenticator made of the options: of this account, or of the one that it names.

    Raises:
        PasskeyRefused: it proves nothing.
        PasskeysUnavailable: they cannot work here.
        Busy, StoreError: not now.
    """
    domain = _domain(deps)
    shown = read_assertion(credential)
    ticket = _ticket(deps, shown.challenge, "passkey_login", now)
    if account is None:
        if ticket.account_id or shown.user_handle is None:
            raise PasskeyRefused(REFUSED)
        account = await deps.store.account_by_id(_account_id(shown.user_handle))
        if account is None or account.disabled_at is not None:
            raise PasskeyRefused(REFUSED)
    elif not ticket.is_for(account) or shown.user_handle not in (None, account.id.encode()):
        raise PasskeyRefused(REFUSED)
    passkey = next((each for each in account.factors.passkeys if each.id == shown.id), None)
    if passkey is None:
        raise PasskeyRefused(REFUSED)
    proven = check_assertion(
        credential,
        public_key=passkey.public_key,
        sign_count=passkey.sign_count,
        challenge=shown.challenge,
        rp_id=domain,
        origins=_origins(deps),
    )
    return Assertion(account, passkey, proven.sign_count, shown.challenge, ticket)


def creation_options(deps: Deps, account: Account, now: int) -> dict[str, Any]:
    """Return what a browser asks an authenticator for, to make a passkey for the account.

    Raises:
        PasskeysUnavailable: they cannot work here.
        Busy: not now.
    """
    return registration_options(
        rp_id=_domain(deps),
        rp_name=deps.settings.brand_name,
        user_id=account.id.encode(),
        user_name=account.email,
        challenge=deps.keys.factors.make_ticket("passkey_registration", account, now=now, random=deps.random),
        exclude=_known(account),
        timeout_s=TICKET_LIFE_S,
    )


def check_new(
    deps: Deps, account: Account, credential: Mapping[str, Any], now: int
) -> tuple[NewPasskey, Ticket, bytes]:
    """Return the passkey that an authenticator made of an account's options, with their challenge.

    Raises:
        PasskeyRefused: it is none, or the options were another account's, or too long ago.
        PasskeysUnavailable: they cannot work here.
        Busy: not now.
    """
    domain = _domain(deps)
    challenge = read_challenge(credential)
    ticket = _ticket(deps, challenge, "passkey_registration", now)
    if not ticket.is_for(account):
        raise PasskeyRefused(REFUSED)
    made = check_registration(credential, challenge=challenge, rp_id=domain, origins=_origins(deps))
    return made, ticket, challenge


def passkey_id(passkey: Passkey) -> str:
    """Return the text by which the API names a passkey."""
    return encode_segment(passkey.id)


def _ticket(deps: Deps, challenge: bytes, purpose: TicketFor, now: int) -> Ticket:
    ticket = deps.keys.factors.read_ticket(challenge, purpose, now=now)
    if ticket is None:
        raise PasskeyRefused(REFUSED)
    return ticket


def _account_id(user_handle: bytes) -> str:
    text = user_handle.decode("utf-8", "replace")
    if not text.isprintable():  # no database takes a NUL
        raise PasskeyRefused(REFUSED)
    return text


def _known(account: Account) -> Sequence[tuple[bytes, Sequence[str]]]:
    return [(each.id, each.transports) for each in account.factors.passkeys]


def _domain(deps: Deps) -> str:
    domain = deps.settings.passkey_domain_name
    if domain is None:
        raise PasskeysUnavailable(
            "Passkeys belong to a name, and this server's issuer is an IP address. Use its name instead."
        )
    return domain


def _origins(deps: Deps) -> Sequence[str]:
    """The server's own pages, and those of the front ends that may speak for their visitors."""
    return (deps.settings.origin, *deps.settings.allowed_origins)
