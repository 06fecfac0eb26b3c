"""Parts of a server that are loaded only where they are configured: what is loaded stays in memory for months.

One of the three files in which a module is imported by its name (ADR 0028): modules of its own layer or below.
"""

import importlib
from typing import Final

from keepless.config import OidcConfig
from keepless.http.provider import Provider, ProviderOf

__all__ = ["open_id_provider"]

_OIDC: Final = "keepless.http.oidc"


def open_id_provider(config: OidcConfig, secret: str) -> Provider:
    """A provider of OpenID Connect, and the libraries for it (5 MB)."""
    made: ProviderOf = importlib.import_module(_OIDC).OpenIdProvider
    return made(config, secret)
