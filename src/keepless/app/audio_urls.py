"""How audio by url is composed: for the serving processes and for lines of batches alike."""

from keepless.config import Settings
from keepless.outbound.fetch import Fetcher

__all__ = ["fetcher_of"]


def fetcher_of(settings: Settings) -> Fetcher | None:
    """Who fetches; None when the operator allows no host. Certificates: the system's authorities (SSL_CERT_FILE)."""
    urls = settings.audio_urls
    return Fetcher(urls.hosts, most_bytes=settings.limits.audio_bytes, seconds=urls.seconds) if urls.hosts else None
