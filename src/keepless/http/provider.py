"""Who vouches for people from outside: what the entrance asks of a provider, and what it is told.

Holds: `Provider`, `Claims`, `ProviderError`, `ProviderOf`. Leaves out: the protocol (oidc), which a server loads only
where it is configured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from keepless.config import OidcConfig
from keepless.governance.people import Vouched

__all__ = ["Claims", "Provider", "ProviderError", "ProviderOf"]


class ProviderError(Exception):
    """The provider cannot be asked, or what it answered proves nothing."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a checked token says."""

    vouched: Vouched
    groups: frozenset[str]


class Provider(Protocol):
    """One provider. Every method blocks (network): call it from a worker thread."""

    @property
    def name(self) -> str:
        """What the button says."""

    def start(self, state: str, browser: str, redirect_uri: str, *, again: bool = False) -> str:
        """Where to send the browser. Raises `ProviderError`."""

    def claims(self, code: str, browser: str, redirect_uri: str, *, again: bool = False) -> Claims:
        """What the code proves of whoever came back. Raises `ProviderError`."""


ProviderOf = Callable[[OidcConfig, str], Provider]  # its configuration, and the client's secret
