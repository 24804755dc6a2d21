"""Whose allowance an address uses. Pure."""

import functools
import ipaddress
from typing import Final

UNKNOWN: Final = "unknown"
"""The allowance that all senders without a readable address share: to have none must not make anybody free."""

_TRANSLATED: Final = int(ipaddress.IPv6Address("64:ff9b::")) >> 32  # the well-known prefix, a /96


@functools.lru_cache(maxsize=4096)
def address_key(text: str | None) -> str:
    """Return the key for an address: an IPv4 address itself, of IPv6 its /64, which is what one sender commonly has.

    An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`), or was translated (`64:ff9b::192.0.2.1`, RFC 6052), is
    that IPv4 address.
    """
    if text is None:
        return UNKNOWN
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if int(address) >> 32 == _TRANSLATED:
        return str(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))
