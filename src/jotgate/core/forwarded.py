"""Who really sent a request that came through proxies: Forwarded (RFC 7239) and X-Forwarded-*; it knows no framework.

Anyone can write these headers, so they count only as far as configured proxies vouch for them: from the right,
and no further than the first address that is not one of ours.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Hop = tuple[_Address | None, str | None]


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose forwarding headers count: networks, or how many there always are in front of us."""

    networks: tuple[_Network, ...] = ()
    count: int = 0

    @classmethod
    def parse(cls, value: Sequence[str] | int) -> "TrustedProxies":
        """Read addresses, networks (``10.0.0.0/8``) or a count from 0 to 16.

        Raises:
            ValueError: naming what is neither.
        """
        if isinstance(value, int):
            if not 0 <= value <= 16:
                raise ValueError(f"a count of proxies is from 0 to 16, not {value}")
            return cls(count=value)
        networks: list[_Network] = []
        for text in value:
            try:
                networks.append(ipaddress.ip_network(text, strict=True))
            except ValueError:
                raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8") from None
        return cls(networks=tuple(networks))

    def __bool__(self) -> bool:
        return bool(self.networks or self.count)

    def holds(self, address: _Address | None) -> bool:
        """Whether the address is one of the trusted networks'."""
        return address is not None and any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Sender:
    """Where a request came from: the nearest address that we have no reason to trust, and whether it used TLS.

    ``address`` is None where none is known (a test, a Unix socket, an obfuscated ``for=``).
    """

    address: _Address | None
    secure: bool

    @property
    def confidential(self) -> bool:
        """Whether nobody on a network could read along: TLS, or this machine's own loopback."""
        return self.secure or (self.address is not None and self.address.is_loopback)


def parse_address(text: str | None) -> _Address | None:
    """Read an address as proxies write it: bare, ``[v6]``, ``v4:port``, ``[v6]:port``; None for anything else."""
    if text is None:
        return None
    text = text.strip().strip('"')
    if match := re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # An IPv4 peer on a dual-stack socket is the IPv4 peer.
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def resolve_sender(
    peer: str | None,
    scheme: str,
    *,
    forwarded: Sequence[str] = (),
    forwarded_for: Sequence[str] = (),
    forwarded_proto: Sequence[str] = (),
    proxies: TrustedProxies,
) -> Sender:
    """Tell the sender of a request.

    Args:
        peer: the address of the connection.
        scheme: ``http`` or ``https`` (``ws``, ``wss``), of the connection.
        forwarded: values of the ``Forwarded`` header lines, in order.
        forwarded_for: values of ``X-Forwarded-For``; used only where there is no ``Forwarded``.
        forwarded_proto: values of ``X-Forwarded-Proto``; used only where there is no ``Forwarded``.
        proxies: who is trusted. Nobody trusted: the headers are not looked at.
    """
    direct = Sender(parse_address(peer), scheme in ("https", "wss"))
    if not (proxies.count or proxies.holds(direct.address)):
        return direct
    hops = _forwarded_hops(forwarded) if forwarded else _x_forwarded_hops(forwarded_for, forwarded_proto)
    if not hops:
        # The proxy says nothing about its client: naming it as trusted is the operator's word that it speaks TLS.
        return Sender(direct.address, secure=True)
    address, proto = _outermost(hops, proxies)
    return Sender(address, secure=proto in (None, "https", "wss"))


def _outermost(hops: Sequence[_Hop], proxies: TrustedProxies) -> _Hop:
    """Return the hop nearest to the client that our own proxies vouch for."""
    if proxies.count:
        return hops[min(proxies.count, len(hops)) - 1]
    return next((hop for hop in hops if not proxies.holds(hop[0])), hops[-1])


def _forwarded_hops(lines: Sequence[str]) -> list[_Hop]:
    """Return (for, proto) of each element, nearest proxy first (RFC 7239 section 4)."""
    hops: list[_Hop] = []
    for element in reversed(_split_quoted(",".join(lines), ",")):
        pairs = dict(_pair(part) for part in _split_quoted(element, ";"))
        hops.append((parse_address(pairs.get("for")), pairs.get("proto", "").strip('"').lower() or None))
    return hops


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip()


def _split_quoted(text: str, separator: str) -> list[str]:
    return re.findall(rf'(?:"[^"]*"|[^{separator}"])+', text)


def _x_forwarded_hops(forwarded_for: Sequence[str], forwarded_proto: Sequence[str]) -> list[_Hop]:
    addresses = [part for part in ",".join(forwarded_for).split(",") if part.strip()][::-1]
    protos = [part.strip().lower() for part in ",".join(forwarded_proto).split(",") if part.strip()][::-1]
    hops: list[_Hop] = []
    for index in range(max(len(addresses), len(protos))):
        # Proxies append addresses, but most set a single protocol: the last known one is the client's.
        proto = protos[min(index, len(protos) - 1)] if protos else None
        hops.append((parse_address(addresses[index]) if index < len(addresses) else None, proto))
    return hops
