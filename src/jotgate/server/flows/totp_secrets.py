"""The secret of an account's authenticator app, opened."""

from typing import Final

from jotgate.server.boxes import KeyAway, SealBroken
from jotgate.server.flows.deps import Deps
from jotgate.server.records import Account, Totp
from jotgate.server.refusals import Busy

_UNUSABLE_FOR_S: Final = 60


def app_secret(deps: Deps, account: Account, totp: Totp) -> str:
    """Return the secret that the app has.

    Raises:
        Busy: the key that it is sealed with cannot be used here, or the row was changed; recovery codes work.
    """
    try:
        return deps.keys.factors.open_secret(account.id, totp.sealed)
    except (KeyAway, SealBroken) as error:
        deps.log.error("second_factor_unusable", account=account.id, code=error.code)  # noqa: TRY400 - no traces
        told = "Codes of apps cannot be checked at the moment. Use a recovery code or a passkey, or try again later."
        raise Busy(told, retry_after_s=_UNUSABLE_FOR_S) from None
