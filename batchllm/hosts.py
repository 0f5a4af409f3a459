"""Hosts of URLs: which of them are this machine, or in a private network, and so may have plain http."""

import ipaddress
import re
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}

# RFC 1918, RFC 4193, and link-local addresses (RFC 3927, RFC 4291).
_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
    )
)
# Names that public DNS does not have: mDNS, home and company networks.
_PRIVATE_NAMES = (".local", ".home.arpa", ".internal")
# 134744072 is another spelling of the address 8.8.8.8.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]+")


def host_of(url: str) -> str:
    """The host of a URL, in lower case."""
    return urlsplit(url).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def is_local(host: str) -> bool:
    """Whether plain http to the host stays on this machine or in a private network.

    True for loopback, private, unique local and link-local addresses, and for names that public DNS does not
    have: of a single label (a container's, a neighbour's), ``.local``, ``.home.arpa`` and ``.internal``.
    """
    address = _address(host)
    if address:
        return address.is_loopback or any(
            address.version == network.version and address in network for network in _PRIVATE
        )
    single_label = "." not in host and not _NUMBER.fullmatch(host)
    return is_loopback(host) or single_label or host.endswith(_PRIVATE_NAMES)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
