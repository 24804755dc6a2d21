"""Who really sent a request that came through proxies: Forwarded (RFC 7239) and X-Forwarded-*; it knows no framework.

Anyone can write these headers, so they count only as far as configured proxies vouch for them: from the right,
and no further than the first address that is not one of ours.
"""

import functools
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Hop = tuple[_Address | None, str | None]
# More than any chain of proxies; what lies before that, the sender made up, and reading it would cost us.
_MAX_HOPS = 32


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


@functools.lru_cache(maxsize=1024)
def _direct_sender(peer: str | None, scheme: str) -> Sender:
    """Tell the sender of a connection, which brings many requests; what headers say is not remembered."""
    return Sender(parse_address(peer), scheme in ("https", "wss"))


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
        forwarded_for: values of ``X-Forwarded-For``.
        forwarded_proto: values of ``X-Forwarded-Proto``.
        proxies: who is trusted. Nobody trusted: the headers are not looked at.
    """
    direct = _direct_sender(peer, scheme)
    if not (proxies.count or proxies.holds(direct.address)):
        return direct
    told = [
        _sender(hops, proxies)
        for hops in (_forwarded_hops(forwarded), _x_forwarded_hops(forwarded_for, forwarded_proto))
        if hops
    ]
    if len(told) == 2:
        # A proxy writes one family and passes the other through as its client sent it. Which one is its own we
        # cannot know, so that only what both say counts.
        return Sender(told[0].address if told[0].address == told[1].address else None, all(one.secure for one in told))
    if told:
        return told[0]
    # A named proxy that says nothing: naming it is the operator's word that it speaks TLS. A count of proxies that
    # left no trace says that they were not passed at all.
    return direct if proxies.count else Sender(direct.address, secure=True)


def is_vouched_for(peer: str | None, scheme: str, sender: Sender, proxies: TrustedProxies) -> bool:
    """Whether a request came from one of the trusted proxies, so that other headers of its are the proxy's word.

    Where proxies are only counted, that is known when they have told an address other than the connection's.
    """
    direct = _direct_sender(peer, scheme)
    if proxies.count:
        return sender.address is not None and sender.address != direct.address
    return proxies.holds(direct.address)


def _sender(hops: Sequence[_Hop], proxies: TrustedProxies) -> Sender:
    """Return the hop nearest to the client that our own proxies vouch for."""
    if proxies.count > len(hops):
        return Sender(None, secure=False)  # fewer proxies than there always are: somebody goes around them
    if proxies.count:
        address, proto = hops[proxies.count - 1]
    else:
        address, proto = next((hop for hop in hops if not proxies.holds(hop[0])), hops[-1])
    return Sender(address, secure=proto in (None, "https", "wss"))


def _forwarded_hops(lines: Sequence[str]) -> list[_Hop]:
    """Return (for, proto) of each element, nearest proxy first (RFC 7239 section 4)."""
    hops: list[_Hop] = []
    for element in _split_quoted(",".join(lines), ",")[: -_MAX_HOPS - 1 : -1]:
        pairs = dict(_pair(part) for part in _split_quoted(element, ";"))
        hops.append((parse_address(pairs.get("for")), pairs.get("proto", "").strip('"').lower() or None))
    return hops


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip()


def _split_quoted(text: str, separator: str) -> list[str]:
    return re.findall(rf'(?:"[^"]*"|[^{separator}"])+', text)


def _x_forwarded_hops(forwarded_for: Sequence[str], forwarded_proto: Sequence[str]) -> list[_Hop]:
    addresses = _last_parts(forwarded_for)
    protos = [part.lower() for part in _last_parts(forwarded_proto)]
    hops: list[_Hop] = []
    for index in range(max(len(addresses), len(protos))):
        # Proxies append addresses, but most set a single protocol: the last known one is the client's.
        proto = protos[min(index, len(protos) - 1)] if protos else None
        hops.append((parse_address(addresses[index]) if index < len(addresses) else None, proto))
    return hops


def _last_parts(lines: Sequence[str]) -> list[str]:
    parts = ",".join(lines).rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
    return [part.strip() for part in reversed(parts) if part.strip()]
