"""Settings: defaults < `keepless.toml` < `KEEPLESS_*` environment (CONTRACT.md).

Holds: the frozen values everything is composed from, and `load`. Leaves out: anything a customer can change (those are
data controls, in the database). A wrong value is a `ConfigError` that names the setting and what is allowed.
"""

import os
import re
import tomllib
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from keepless.errors import ConfigError

__all__ = [
    "EMBEDDED",
    "AudioUrls",
    "Endpoint",
    "Engine",
    "FineTuning",
    "Limits",
    "ModelConfig",
    "OidcConfig",
    "OidcGroup",
    "Settings",
    "UpstreamConfig",
    "UpstreamRetention",
    "load",
]

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Endpoint(StrEnum):
    """What is called; `other` is anything that is not one of ours (never a model's)."""

    CHAT = "chat.completions"
    RESPONSES = "responses"
    INPUT_TOKENS = "responses.input_tokens"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTIONS = "audio.transcriptions"
    TRANSLATIONS = "audio.translations"
    SPEECH = "audio.speech"
    FILES = "files"
    BATCHES = "batches"
    UPLOADS = "uploads"
    FINE_TUNINGS = "fine_tunings"
    OTHER = "other"


class Engine(StrEnum):
    """What answers for a model."""

    LLAMA = "llama"
    WHISPER = "whisper"
    FLITE = "flite"
    MINILM = "minilm"
    OPENAI = "openai"


EMBEDDED: Final = frozenset(Engine) - {Engine.OPENAI}


class UpstreamRetention(StrEnum):
    """What the operator of an upstream promises to keep. A missing declaration is `unknown`."""

    ZERO = "zero"
    LOGS_30D = "logs_30d"
    UNKNOWN = "unknown"


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[models.upstreams]]` entry: a server that answers for a model, with promises of its own.

    Time-outs and `max_connections` that are not set here are the model's.
    """

    base_url: str
    api_key_env: str | None = None
    upstream_model: str | None = None
    retention: UpstreamRetention = UpstreamRetention.UNKNOWN
    region: str | None = None
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1  # its share of the requests, against the others'
    max_connections: Positive | None = None
    connect_timeout: Seconds | None = None
    first_byte_timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    # asked with GET at the server's root, e.g. "/health"; None: only real requests tell
    health_path: Annotated[str, msgspec.Meta(pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,200}$")] | None = None
    health_seconds: Annotated[float, msgspec.Meta(ge=0.1)] = 10.0


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[models]]` entry. Times in seconds, sizes in tokens.

    One upstream can be written into the entry itself; several are `[[models.upstreams]]`.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}$")]
    engine: Engine = Engine.LLAMA
    base_url: str | None = None
    api_key_env: str | None = None
    upstream_model: str | None = None  # the name the upstream knows it by; default: `id`
    retention: UpstreamRetention = UpstreamRetention.UNKNOWN
    region: str | None = None
    owned_by: str = "keepless"
    context_window: Positive = 8192
    max_completion_tokens: Positive = 8192
    capabilities: list[str] | None = None  # None: all that the engine is known to do
    endpoints: list[Endpoint] | None = None  # None: those that the engine is known to serve
    native_responses: bool = False  # openai: the upstream itself speaks /responses; else it is asked for chat
    extra_params: list[str] = []  # request fields passed through beyond OpenAI's and Groq's
    max_input_characters: Positive = 4096  # of a text to be spoken
    connect_timeout: Seconds = 5.0
    first_byte_timeout: Seconds = 60.0
    idle_timeout: Seconds = 60.0
    max_connections: Positive = 256
    batch_concurrency: Positive | None = None  # lines of batches at once, of each worker; None: 64, embedded parallel/2
    # several upstreams
    upstreams: list[UpstreamConfig] = []
    tries: Positive = 3  # upstreams asked for one request at most, one after another
    retry_seconds: Seconds = 30.0  # since a request arrived; after them no other upstream is tried
    retry_timeouts: bool = False  # ask another one too when the first byte did not come in time
    breaker_failures: Positive = 5  # in a row, until an upstream is avoided
    breaker_seconds: Seconds = 1.0  # how long, at first; twice as long each time, up to a minute
    # embedded engines only
    path: str | None = None  # llama: a GGUF file; whisper: a folder; default: the weights that come with Keepless
    threads: Positive = 2
    parallel: Positive = 4
    queue: Positive = 64  # requests waiting for a slot before 503
    memory_mb: Positive = 2048  # of the engine's process (all but llama: what its weights and context take, and 1 GiB)
    idle_stop: Seconds = 600.0  # the engine ends after as long without a request, and starts with the next (not llama)
    audio_seconds: Positive = 7200  # whisper: the longest audio it takes
    preload: bool = False  # start the engine at once, not with the first request (llama always is)
    # prices in US dollars; unset = 0
    input_price: Price = 0.0  # a million tokens
    output_price: Price = 0.0  # a million tokens
    character_price: Price = 0.0  # a million characters spoken
    audio_hour_price: Price = 0.0  # an hour of sound transcribed or translated

    def all_upstreams(self) -> list[UpstreamConfig]:
        """Every upstream, with nothing left unset that the model says; none for an embedded engine."""
        if self.engine is not Engine.OPENAI:
            return []
        own = UpstreamConfig(
            base_url=self.base_url or "",
            api_key_env=self.api_key_env,
            upstream_model=self.upstream_model,
            retention=self.retention,
            region=self.region,
        )
        return [
            msgspec.structs.replace(
                upstream,
                max_connections=upstream.max_connections or self.max_connections,
                connect_timeout=upstream.connect_timeout or self.connect_timeout,
                first_byte_timeout=upstream.first_byte_timeout or self.first_byte_timeout,
                idle_timeout=upstream.idle_timeout or self.idle_timeout,
            )
            for upstream in self.upstreams or [own]
        ]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ceilings that protect the server itself (not rate limits, which belong to organizations)."""

    body_bytes: Positive = 20 * 1024 * 1024
    audio_bytes: Positive = 25 * 1024 * 1024  # of one file to be transcribed or translated
    held_bytes: Positive = 512 * 1024 * 1024  # of all bodies together that came in more than one piece
    header_bytes: Positive = 32 * 1024
    header_timeout: Seconds = 15.0
    body_timeout: Seconds = 60.0
    keep_alive_timeout: Seconds = 75.0
    connections: Positive = 20_000
    json_depth: Positive = 100
    batch_lines: Positive = 50_000
    batch_bytes: Positive = 200 * 1024 * 1024  # of the input of one batch
    batch_line_bytes: Positive = 8 * 1024 * 1024
    ledger_rows: Positive = 20_000
    capture_bytes: Positive = 8 * 1024 * 1024
    file_bytes: Positive = 200 * 1024 * 1024  # of one uploaded file
    files: Positive = 10_000  # of one organization; an upload that is begun finds the pending ones counted, too
    files_bytes: Positive = 100 * 1024 * 1024 * 1024  # of all files of one organization; pending uploads as above
    uploads: Positive = 64  # that one process takes at a time
    part_bytes: Positive = 64 * 1024 * 1024  # of one part of an upload


class AudioUrls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[audio_urls]`: where audio that requests name by `url` may be fetched from. No host: nothing is fetched."""

    # names, each with :port where that is not 443
    hosts: list[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[1-9][0-9]{0,4})?$")]] = []
    seconds: Seconds = 30.0  # for one file, from the look-up of its host to its last byte


class FineTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[fine_tuning]`: what a training may be at most, what the process that trains may take of its machine, and what
    tuned models may take of each machine that serves them, each by a process of its own.
    """

    least_examples: Positive = 10  # as OpenAI has it
    examples: Positive = 50_000
    bytes: Positive = 64 * 1024 * 1024  # of a training or validation file
    example_bytes: Positive = 1024 * 1024
    adapter_bytes: Positive = 512 * 1024 * 1024  # of a file to be imported
    context: Positive = 1024  # tokens of an example that are learned from at most; what is longer is cut
    checkpoint_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0  # about so much is lost when a machine fails
    threads: Positive = 2
    memory_mb: Positive = 8192
    # serving
    served_models: Positive = 4  # loaded at once; the least recently used one goes
    served_memory_mb: Positive = 4096  # of their processes together, without the weights of the base, which they share
    served_idle_stop: Seconds = 600.0  # a model that nobody has asked for so long is unloaded
    load_seconds: Seconds = 60.0  # a request waits at most so long for its model to be loaded
    load_waiting: Positive = 256  # requests that wait so


class OidcGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[oidc.groups]]` entry: who is in this group of the provider is a member here, with this role."""

    group: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    role: Literal["owner", "developer", "reader", "auditor", "operator"]
    organization: str | None = None  # its id; None: the only organization of this deployment; an operator has none


class OidcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[oidc]`: the provider with which people sign in. The first group of the list that fits decides."""

    issuer: Annotated[str, msgspec.Meta(pattern=r"^(https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/])")]
    client_id: Annotated[str, msgspec.Meta(min_length=1)]
    client_secret_env: Annotated[str, msgspec.Meta(min_length=1)]  # the environment variable that holds the secret
    base_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]+$")]  # of this console, as browsers know it
    groups: Annotated[list[OidcGroup], msgspec.Meta(min_length=1)]
    groups_claim: str = "groups"
    name: str = "single sign-on"  # on the button


class Mechanism(StrEnum):
    """What makes a transfer of personal data to another country lawful (GDPR, chapter V)."""

    NOT_NEEDED = "not_needed"  # it stays where the customer is
    ADEQUACY = "adequacy"  # article 45
    SCC = "scc"  # article 46(2)(c), standard contractual clauses
    BCR = "bcr"  # article 47, binding corporate rules


class TransferConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[transfers]]` entry: who else may come to see customer data, where, and on which ground."""

    recipient: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    country: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}$")]  # ISO 3166-1 alpha-2
    mechanism: Mechanism
    scc_module: Annotated[int, msgspec.Meta(ge=1, le=4)] | None = None  # of Commission decision 2021/914
    customers_in: list[Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}$")]] = []  # countries; none: everywhere
    hosts: list[Annotated[str, msgspec.Meta(min_length=1, max_length=253)]] = []  # of upstreams that are this recipient


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can set. Paths are absolute after `load`."""

    data_dir: str = "data"
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    workers: Positive = 1
    behind_proxy: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    trusted_proxies: list[str] = []
    database_url: str | None = None
    blobs_url: str | None = None
    keyring_url: str | None = None
    location_region: str | None = None  # what the operator declares of a local folder; None = undeclared
    log_origin: str = "keepless.local/log"
    sweep_seconds: Seconds = 30.0
    abuse_auto_capture: bool = False
    usage_days: Positive | None = None  # None: no end (DECISIONS 19)
    policy_url: str | None = None
    webhooks_allow_private: bool = False  # receivers on own premises; else public addresses only
    audio_urls: AudioUrls = AudioUrls()
    fine_tuning: FineTuning = FineTuning()
    oidc: OidcConfig | None = None
    transfers: list[TransferConfig] = []
    limits: Limits = Limits()
    models: list[ModelConfig] = []

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        url = self.database_url or f"sqlite:///{self.data_dir}/keepless.sqlite"
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def blobs(self) -> str:
        """URL of the location of customer data."""
        return self.blobs_url or f"file://{self.data_dir}/blobs"

    @property
    def keyring(self) -> str:
        """URL of the keyring, always outside the database."""
        return self.keyring_url or f"file://{self.data_dir}/keyring"


DEFAULT_MODEL: Final = ModelConfig(
    id="smollm2-135m-instruct", retention=UpstreamRetention.ZERO, context_window=2048, max_completion_tokens=2048
)
# What several upstreams must say one by one: nothing is inherited that could be a promise of somebody else.
_OF_AN_UPSTREAM: Final[dict[str, object]] = {
    "base_url": None,
    "api_key_env": None,
    "upstream_model": None,
    "retention": UpstreamRetention.UNKNOWN,
    "region": None,
}
MINILM_TOKENS: Final = 256  # what all-MiniLM-L6-v2 says it was made for
DEFAULT_MODELS: Final = (
    DEFAULT_MODEL,
    ModelConfig(id="whisper-base", engine=Engine.WHISPER, retention=UpstreamRetention.ZERO, parallel=1),
    ModelConfig(id="flite", engine=Engine.FLITE, retention=UpstreamRetention.ZERO),
    ModelConfig(
        id="all-minilm-l6-v2", engine=Engine.MINILM, retention=UpstreamRetention.ZERO, context_window=MINILM_TOKENS
    ),
)
_NOT_A_MODELS: Final = frozenset(
    {Endpoint.OTHER, Endpoint.FILES, Endpoint.UPLOADS, Endpoint.BATCHES, Endpoint.FINE_TUNINGS}
)
# The client's, and what Kubernetes sets for a service of our name. Others are refused where they look like a setting.
_NOT_OURS: Final = re.compile(r"KEEPLESS_(MODEL|(API|ADMIN)_KEY|BASE_URL|SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_.*)")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def load(
    config: Path | None = None, environ: dict[str, str] | None = None, **overrides: str | int | bool | None
) -> Settings:
    """Settings from a file, the environment and the command line, the latter winning. Raises `ConfigError`."""
    values: dict[str, object] = {}
    if config is not None:
        try:
            values |= tomllib.loads(config.read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            what = "cannot be read" if isinstance(error, OSError) else "is not TOML"
            raise ConfigError(f"the configuration file {what}") from None
    grouped = {"audio_urls", "fine_tuning", "limits", "models", "oidc", "transfers", "trusted_proxies"}
    plain = {f.name for f in msgspec.structs.fields(Settings)} - grouped
    given = (os.environ if environ is None else environ).items()
    set_here = {k: v for k, v in given if k.startswith("KEEPLESS_") and not _NOT_OURS.fullmatch(k)}
    values |= {name[9:].lower(): text for name, text in set_here.items() if name[9:].lower() in plain}
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"a setting is not allowed: {error}") from None
    others = sorted(name for name in set_here if name[9:].lower() not in plain)
    if near := [name for name in others if get_close_matches(name[9:].lower(), plain | grouped, cutoff=0.85)]:
        raise ConfigError(f"no settings of the environment: {', '.join(near)} (misspelt, or the file's alone)")
    return _checked(msgspec.structs.replace(settings, data_dir=str(Path(settings.data_dir).absolute())))


def _checked(settings: Settings) -> Settings:
    for model in settings.models:
        _check_upstreams(model)
        if _NOT_A_MODELS.intersection(model.endpoints or ()):
            raise ConfigError(f"models[{model.id}].endpoints: other, files and uploads are not endpoints of a model")
        if model.native_responses and model.engine is not Engine.OPENAI:
            raise ConfigError(f"models[{model.id}].native_responses is for engine openai only")
    for transfer in settings.transfers:
        if (transfer.mechanism is Mechanism.SCC) is (transfer.scc_module is None):
            raise ConfigError("transfers: scc_module belongs to mechanism scc, and scc needs it")
    if len({model.id for model in settings.models}) != len(settings.models):
        raise ConfigError("two [[models]] have the same id")
    if settings.host not in _LOOPBACK and not (settings.behind_proxy or settings.tls_cert):
        raise ConfigError("host is not loopback: set tls_cert and tls_key, or --behind-proxy when a proxy does TLS")
    # An embedded engine runs in our own process tree under our own rules: it keeps nothing, whatever the file says.
    models = [_embedded(m) if m.engine in EMBEDDED else m for m in settings.models or DEFAULT_MODELS]
    return msgspec.structs.replace(settings, models=models)


def _embedded(model: ModelConfig) -> ModelConfig:
    longest = model.context_window
    if model.engine is Engine.MINILM and model.path is None:
        longest = min(longest, MINILM_TOKENS)
    return msgspec.structs.replace(model, retention=UpstreamRetention.ZERO, context_window=longest)


def _check_upstreams(model: ModelConfig) -> None:
    """Where a model's upstreams are said: in the entry or in its list, and never a promise that might mean another."""
    if not model.upstreams:
        if model.engine is Engine.OPENAI and not model.base_url:
            raise ConfigError(f"models[{model.id}].base_url is required for engine openai")
        return
    if model.engine is not Engine.OPENAI:
        raise ConfigError(f"models[{model.id}].upstreams is for engine openai only")
    for name, default in _OF_AN_UPSTREAM.items():
        if getattr(model, name) != default:
            raise ConfigError(f"models[{model.id}].{name} belongs to each of its upstreams, which say it themselves")
