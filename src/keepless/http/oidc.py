"""Sign-in with an OpenID Connect provider: authorization code with PKCE (S256), state, nonce; tokens checked here.

Holds: `OpenIdProvider`. Leaves out: who a person is here (governance.people), pages (console.entrance). Loaded only by
a server that is configured for it (app.on_demand): its libraries take 5 MB of memory; all others know `provider`. One
secret of the browser's cookie makes both the nonce and the PKCE verifier, so a row of the database that is read by
somebody lets nobody finish a sign-in, and a code that is caught is worth nothing in another browser.

The provider's address is the operator's; it is asked over HTTPS (plain HTTP on loopback only). Nothing of what it
answers is repeated: whatever is wrong is one refusal.
"""

import hmac
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from keepless.accounts.sessions import subject_of
from keepless.config import OidcConfig
from keepless.governance.people import Vouched
from keepless.http.provider import Claims, Provider, ProviderError

__all__ = ["OpenIdProvider"]

_SCOPE: Final = "openid email profile"
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA"]
_LEEWAY_S: Final = 60
_FRESH_S: Final = 300
_TIMEOUT_S: Final = 10.0


class OpenIdProvider(Provider):
    """One provider. Every method blocks (network): call it from a worker thread."""

    def __init__(self, config: OidcConfig, secret: str) -> None:
        self._config: Final = config
        self._secret: Final = secret

    @property
    def name(self) -> str:
        """See `Provider`."""
        return self._config.name

    def start(self, state: str, browser: str, redirect_uri: str, *, again: bool = False) -> str:
        """See `Provider`."""
        with self._client(redirect_uri) as client:
            at = self._metadata(client)["authorization_endpoint"]
            more = {"max_age": "0"} if again else {}
            url, _ = client.create_authorization_url(
                at, state=state, nonce=_made(browser, "nonce"), code_verifier=_made(browser, "verifier"), **more
            )
            return str(url)

    def claims(self, code: str, browser: str, redirect_uri: str, *, again: bool = False) -> Claims:
        """See `Provider`."""
        try:
            with self._client(redirect_uri) as client:
                metadata = self._metadata(client)
                token = client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=_made(browser, "verifier")
                )
                told: Any = _json(client.request("GET", metadata["jwks_uri"], withhold_token=True))
                keys = jwk.KeySet.import_key_set(told)
                found = jwt.decode(str(token["id_token"]), keys, algorithms=_ALGORITHMS).claims
                self._check(found, metadata["issuer"], browser, again=again)
        except (OAuthError, JoseError, httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ProviderError from error
        return _claims(found, self._config.groups_claim)

    def _check(self, found: Mapping[str, Any], issuer: str, browser: str, *, again: bool) -> None:
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._config.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        registry.validate(dict(found))
        if not hmac.compare_digest(str(found.get("nonce", "")), _made(browser, "nonce")):
            raise ValueError("nonce")
        audience = found["aud"]
        if isinstance(audience, list) and len(audience) > 1 and found.get("azp") != self._config.client_id:
            raise ValueError("azp")
        if again and int(found["auth_time"]) < time.time() - _FRESH_S:
            raise ValueError("auth_time")

    def _client(self, redirect_uri: str) -> OAuth2Client:
        return OAuth2Client(
            client_id=self._config.client_id,
            client_secret=self._secret,
            scope=_SCOPE,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def _metadata(self, client: OAuth2Client) -> dict[str, str]:
        issuer = self._config.issuer.rstrip("/")
        try:
            found = _json(client.request("GET", issuer + "/.well-known/openid-configuration", withhold_token=True))
            told = {
                name: str(found[name]) for name in ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
            }
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ProviderError from error
        if told["issuer"].rstrip("/") != issuer or not all(_safe(url) for url in told.values()):
            raise ProviderError
        return told


def _safe(url: str) -> bool:
    return url.startswith(("https://", "http://127.0.0.1:", "http://localhost:", "http://[::1]:"))


def _made(browser: str, what: str) -> str:
    """The nonce or the verifier of a browser's secret."""
    return hmac.new(browser.encode(), what.encode(), sha256).hexdigest()


def _json(answer: Any) -> dict[str, Any]:
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _claims(found: Mapping[str, Any], groups_claim: str) -> Claims:
    groups, email, name = found.get(groups_claim), found.get("email"), found.get("name")
    verified = isinstance(email, str) and found.get("email_verified") is True and 3 <= len(email) <= 254
    shown = isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()
    return Claims(
        Vouched(
            subject=subject_of(str(found["iss"]), str(found["sub"])),
            email=str(email).lower() if verified else None,
            name=str(name) if shown else None,
        ),
        groups=frozenset(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else frozenset(),
    )
