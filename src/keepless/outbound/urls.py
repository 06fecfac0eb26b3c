"""Where a url of somebody else's may lead: the url, checked strictly, and the address it leads to.

Holds: `Target` and `target_of` (a url in parts, or `UrlError`), `permitted` (whether an address may be connected to).
Leaves out: resolving and connecting (pinned).

A url is https, plain ASCII, of bounded length, with a DNS name or an address as its host; without credentials and
without a fragment. What an address may be is asked again of every address a name resolves to, each time: a name
that was public when it was registered can lead inside later (DNS rebinding).
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from keepless.errors import KeeplessError

__all__ = ["Address", "Target", "UrlError", "permitted", "target_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_NUMBER: Final = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")  # as a last label it would be read as a number, not a name
_REST: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/%?]*\Z")
_HTTPS: Final = 443
_RELAY: Final = ipaddress.IPv4Network("192.88.99.0/24")  # 6to4's relays
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # all that is assigned; mapped and site-local ones lie outside
# IPv4 addresses inside IPv6 ones within it (Teredo, 6to4).
_EMBEDDING: Final = (ipaddress.IPv6Network("2001::/32"), ipaddress.IPv6Network("2002::/16"))


class UrlError(KeeplessError):
    """The url cannot be used; its first argument says why, in a fixed text."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why: Final = why


@dataclass(frozen=True, slots=True)
class Target:
    """A url in the parts that a request needs."""

    host: str
    port: int
    path: str  # with its query

    @property
    def authority(self) -> str:
        """For the `host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _HTTPS else f"{host}:{self.port}"


def permitted(address: Address) -> bool:
    """Whether an address is a public unicast one: not private, loopback, link-local, multicast, reserved or mapped."""
    if isinstance(address, ipaddress.IPv6Address):
        plain = address.scope_id is None and address in _UNICAST and not any(address in one for one in _EMBEDDING)
    else:
        plain = address not in _RELAY
    return plain and address.is_global and not (address.is_multicast or address.is_reserved)


def target_of(url: str, *, longest: int = 1000, allow_private: bool = False) -> Target:
    """The parts of a url. Raises `UrlError`."""
    if not 0 < len(url) <= longest or not url.isascii() or not url.isprintable() or " " in url:
        raise UrlError(f"it must be at most {longest} printable ASCII letters")
    if "#" in url or "\\" in url:
        raise UrlError("it must have no fragment and no backslash")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UrlError("it must be a valid url") from None
    if parts.scheme != "https":
        raise UrlError("it must begin with https://")
    if "@" in parts.netloc:
        raise UrlError("it must hold no credentials")
    if not host or port == 0 or parts.netloc.endswith(":"):
        raise UrlError("it must name a host, and a port that exists")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _REST.match(path):
        raise UrlError("its path and query must be percent-encoded")
    _check_host(host, in_brackets="[" in parts.netloc, allow_private=allow_private)
    return Target(host, port or _HTTPS, path)


def _check_host(host: str, *, in_brackets: bool, allow_private: bool) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        if in_brackets or len(host) > 253 or _NUMBER.match(labels[-1]) or not all(map(_LABEL.match, labels)):
            raise UrlError("its host must be a DNS name or an address") from None
        if len(labels) == 1 and not allow_private:
            raise UrlError("its host must be a public DNS name or address") from None
        return
    if not allow_private and not permitted(address):
        raise UrlError("its host must be a public DNS name or address")
