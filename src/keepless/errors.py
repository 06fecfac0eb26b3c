"""Errors that may be told to a client, and why they can carry no content.

Holds: `Problem`, the one exception that becomes an HTTP answer, and the closed vocabulary of its codes.
Leaves out: the JSON (`keepless.http.problems` is the only place that writes it).

A message is a fixed text of ours; what is filled in are numbers, enum values, ids of ours, parameter names from our
own tables and model ids from the operator's catalogue. Nothing a client typed is ever filled in.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["Code", "ConfigError", "ErrorType", "KeeplessError", "Problem"]


class ErrorType(StrEnum):
    """OpenAI's `error.type`."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    REQUESTS = "requests"
    TOKENS = "tokens"
    SERVER = "server_error"
    API = "api_error"


class Code(StrEnum):
    """`error.code`: closed, also the value recorded in usage metadata."""

    INVALID_JSON = "invalid_json"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    MISSING_PARAMETER = "missing_required_parameter"
    UNKNOWN_PARAMETER = "unknown_parameter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    UNSUPPORTED_VALUE = "unsupported_value"
    CONTEXT_LENGTH = "context_length_exceeded"
    INVALID_API_KEY = "invalid_api_key"
    SIGN_IN_REFUSED = "sign_in_refused"
    MODEL_NOT_FOUND = "model_not_found"
    UNKNOWN_URL = "unknown_url"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_FOUND = "not_found"
    INSUFFICIENT_PERMISSIONS = "insufficient_permissions"
    FEATURE_DISABLED = "feature_disabled_by_data_controls"
    UPSTREAM_RETENTION = "upstream_retention_not_allowed"
    UPSTREAM_REGION = "upstream_region_not_allowed"
    EPOCH_MISMATCH = "epoch_mismatch"
    PURGE_CHOICE_REQUIRED = "purge_choice_required"
    RECENT_SIGN_IN_REQUIRED = "recent_sign_in_required"
    RETENTION_CONFLICT = "retention_conflict"
    LOOSENING_REFUSED = "loosening_refused"
    HELD = "object_held"
    DELETION_PENDING = "deletion_pending"
    STORE_FAILED = "store_failed"
    REQUEST_TOO_LARGE = "request_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    RATE_LIMIT = "rate_limit_exceeded"
    OVERLOADED = "overloaded"
    POLICY_UNREADABLE = "policy_unreadable"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_FAILED = "engine_failed"
    UPSTREAM_AUTH = "upstream_authentication"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_BUSY = "upstream_busy"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_CUT = "upstream_cut"
    UPSTREAM_MALFORMED = "upstream_malformed"
    CLIENT_CLOSED = "client_closed"
    CLIENT_TIMEOUT = "client_timeout"
    WEBHOOK_UNREACHABLE = "webhook_unreachable"
    URL_UNREACHABLE = "url_unreachable"
    BAD_HTTP = "bad_http"
    INTERNAL = "internal_error"


class KeeplessError(Exception):
    """Base of every error of ours. Its text is fixed; it holds no customer content."""


class ConfigError(KeeplessError):
    """The configuration or the data folder is not usable; the message says what to change."""


class Problem(KeeplessError):
    """A refusal or failure to tell a client. `param` is a parameter name from our own tables, or None.

    `headers` are further answer headers (e.g. `retry-after`); `retry=False` adds `x-should-retry: false`, which
    both official SDKs obey.
    """

    def __init__(
        self,
        status: int,
        code: Code,
        message: str,
        *,
        type: ErrorType = ErrorType.INVALID_REQUEST,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = True,
        extra: Mapping[str, int | str | bool | None] | None = None,
    ) -> None:
        super().__init__(code.value)
        self.status: Final = status
        self.code: Final = code
        self.message: Final = message
        self.type: Final = type
        self.param: Final = param
        self.headers: Final = dict(headers or {})
        self.retry: Final = retry
        self.extra: Final = dict(extra or {})
