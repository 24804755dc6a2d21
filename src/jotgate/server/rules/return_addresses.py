"""Where a browser may be sent after a login: pages of the issuer and of its front ends, and nowhere else."""

import re
from collections.abc import Collection
from typing import Final

MAX_CHARS: Final = 2_000
# Nothing that one reader of URLs takes for another thing than the next does: no user, no backslash, no control.
_REST: Final = r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*"
_ORIGIN: Final = r"https://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
_WHOLE: Final = re.compile(rf"({_ORIGIN})((?:[/?#]{_REST})?)", re.ASCII)
_PATH: Final = re.compile(rf"/(?!/){_REST}", re.ASCII)


def return_address(text: str, *, own: str, others: Collection[str]) -> str | None:
    """Return the URL that is meant, if it is on one of the origins; None where nobody should be sent there.

    Args:
        text: a URL as browsers write it, or an absolute path of the own origin.
        own: the issuer's origin.
        others: further origins.
    """
    if len(text) > MAX_CHARS:
        return None
    if _PATH.fullmatch(text):
        return own + text
    whole = _WHOLE.fullmatch(text)
    return text if whole is not None and (whole[1] == own or whole[1] in others) else None


def is_origin(text: str) -> bool:
    """Whether this is an origin as browsers write it, which can stand in a policy (CSP) as it is."""
    return re.fullmatch(_ORIGIN, text, re.ASCII) is not None
