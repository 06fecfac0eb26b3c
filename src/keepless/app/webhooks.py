"""How webhooks are composed: endpoints for the admin API, the deliverer for a job worker."""

from keepless.app.compose import Deployment
from keepless.webhooks.deliver import Deliverer
from keepless.webhooks.endpoints import Endpoints
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets

__all__ = ["deliverer_of", "endpoints_of"]


def endpoints_of(deployment: Deployment) -> Endpoints:
    """Endpoints, and trying one out."""
    return Endpoints(deployment.db, deployment.clock, deployment.log, _secrets(deployment), _sender(deployment))


def deliverer_of(deployment: Deployment) -> Deliverer:
    """What empties the outbox; certificates are checked against the system's authorities (SSL_CERT_FILE)."""
    return Deliverer(deployment.db, deployment.clock, _secrets(deployment), _sender(deployment))


def _secrets(deployment: Deployment) -> Secrets:
    return Secrets(deployment.keyring.webhooks_key)


def _sender(deployment: Deployment) -> Sender:
    return Sender(allow_private=deployment.settings.webhooks_allow_private)
