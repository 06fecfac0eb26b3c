"""Where a request came from, as far as it may be known (DECISIONS 4): a token that means nothing outside this process.

Holds: `Origins`, which finds the client's address behind trusted proxies and turns it into a token. Leaves out:
what is made of tokens (abuse). Addresses are personal data: no address leaves `token_of`, and none is stored,
logged or kept.

An origin counts only when `trusted_proxies` is set and the peer is one of them; loopback, private and other
addresses that are not global never count. IPv6 is cut to its /56, the usual share of one customer. The token is
HMAC-SHA256(key, address), with a random key in memory that is replaced every hour: older tokens match nothing any
more.
"""

import hmac
import ipaddress
import os
from collections.abc import Iterable
from typing import Final

from keepless.clock import Clock
from keepless.errors import ConfigError

__all__ = ["HOUR_S", "Origins"]

HOUR_S: Final = 3600.0
_MAX_HOPS: Final = 20
_IPV6_SHARE: Final = 56

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Origins:
    """Finds origins for one process. Raises `ConfigError` for a trusted proxy that is no address or network."""

    def __init__(self, trusted_proxies: Iterable[str], clock: Clock) -> None:
        try:
            self._trusted: Final = tuple(ipaddress.ip_network(text, strict=False) for text in trusted_proxies)
        except ValueError:
            raise ConfigError("trusted_proxies: addresses or networks, such as 10.0.0.0/8") from None
        self._clock: Final = clock
        self._key = os.urandom(32)
        self._key_made = clock.monotonic()

    @property
    def enabled(self) -> bool:
        """Whether origins count at all."""
        return bool(self._trusted)

    def token_of(self, peer: str, forwarded_for: bytes | None) -> bytes | None:
        """The token of a request's origin; None when it may not or cannot be known.

        `forwarded_for` is the value of X-Forwarded-For; the last address in it that is not a trusted proxy's counts,
        because everything before it can be made up by the client.
        """
        address = self._client(peer, forwarded_for)
        return None if address is None or not address.is_global else self._token(address)

    def visitor_of(self, peer: str, forwarded_for: bytes | None) -> bytes:
        """A token of who is at the other end: the client behind trusted proxies, else whoever is connected."""
        address = self._client(peer, forwarded_for) or _parse(peer)
        return b"" if address is None else self._token(address)

    def _client(self, peer: str, forwarded_for: bytes | None) -> _Address | None:
        """The client as trusted proxies tell it."""
        if not self._trusted or forwarded_for is None:
            return None
        address = _parse(peer)
        if address is None or not self._is_trusted(address):
            return None
        for hop in reversed(forwarded_for.decode("latin-1").split(",")[-_MAX_HOPS:]):
            address = _parse(hop.strip())
            if address is None:
                return None
            if not self._is_trusted(address):
                return address
        return None

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)

    def _token(self, address: _Address) -> bytes:
        now = self._clock.monotonic()
        if now - self._key_made >= HOUR_S:
            self._key, self._key_made = os.urandom(32), now
        share = address.packed
        if address.version == 6:
            share = ipaddress.ip_network((address, _IPV6_SHARE), strict=False).network_address.packed
        return hmac.digest(self._key, share, "sha256")[:16]


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
