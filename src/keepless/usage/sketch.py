"""The shape of a request that failed, without its content (DECISIONS 19): counts, sizes and members of closed lists.

Holds: `Sketch` and its closed vocabularies, `roles_from` and `roles_to`. Leaves out: the record it belongs to (record,
which is compiled; a msgspec struct cannot be, ADR 0009).
"""

from collections.abc import Iterable
from enum import IntFlag, StrEnum
from typing import Final

import msgspec

__all__ = ["Flag", "Phase", "Role", "Sketch", "roles_from", "roles_to"]

_LIMIT: Final = 2**63


class Phase(StrEnum):
    """How far a request came before it failed."""

    HEAD = "head"
    BODY = "body"
    AUTHENTICATE = "authenticate"
    VALIDATE = "validate"
    LIMIT = "limit"
    ROUTE = "route"
    CONNECT = "connect"
    FIRST_BYTE = "first_byte"
    ANSWER = "answer"


class Flag(IntFlag):
    """Features a request used."""

    STREAM = 1
    INCLUDE_USAGE = 2
    SYSTEM = 4
    TOOLS = 8
    TOOL_CHOICE = 16
    JSON_OBJECT = 32
    JSON_SCHEMA = 64
    LOGPROBS = 128
    SEVERAL = 256  # n > 1
    SEED = 512
    STOP = 1024
    IMAGES = 2048
    AUDIO = 4096
    FILES = 8192
    REASONING = 16384
    PRIVACY_SWITCH = 32768
    EXTRA_PARAMETERS = 65536


class Role(StrEnum):
    """Roles of messages; the position in this list, from 1, is the octal digit in `Sketch.roles`."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"
    OTHER = "other"


_DIGIT: Final = {role.value: digit for digit, role in enumerate(Role, 1)}
_ROLES: Final = tuple(Role)
_MAX_ROLES: Final = 20  # 60 bits


def roles_from(roles: Iterable[str]) -> int:
    """The role sequence of at most the last 20 messages as one number: octal digits, the last message lowest."""
    number = 0
    for role in list(roles)[-_MAX_ROLES:]:
        number = number << 3 | _DIGIT.get(role, _DIGIT["other"])
    return number


def roles_to(number: int) -> list[Role]:
    """The role sequence that `roles_from` packed."""
    roles: list[Role] = []
    while number:
        roles.append(_ROLES[(number & 7) - 1])
        number >>= 3
    return roles[::-1]


class Sketch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The shape of a request that failed: counts and sizes in bytes, so that it can be helped without its content."""

    phase: Phase
    flags: Flag = Flag(0)
    roles: int = 0  # see `roles_from`
    messages: int = 0
    tools: int = 0
    body_bytes: int = 0
    largest_message_bytes: int = 0
    max_tokens: int = 0  # asked for; 0 = not said
    upstream_status: int = 0  # 0 = none came
    answered_bytes: int = 0

    def __post_init__(self) -> None:
        if type(self.phase) is not Phase or type(self.flags) is not Flag:
            raise TypeError("a sketch takes members of closed enums")
        try:
            worst = (
                self.roles
                | self.messages
                | self.tools
                | self.body_bytes
                | self.largest_message_bytes
                | self.max_tokens
                | self.upstream_status
                | self.answered_bytes
            )
        except TypeError:
            worst = -1
        if type(worst) is not int or not 0 <= worst < _LIMIT:
            raise TypeError("a sketch takes whole numbers from 0 to 63 bits")

    def row(self, request_id: str, at_ms: int) -> tuple[object, ...]:
        """Plain values in the order of the columns of `usage_sketch`."""
        return (
            request_id,
            at_ms,
            self.phase.value,
            int(self.flags),
            self.roles,
            self.messages,
            self.tools,
            self.body_bytes,
            self.largest_message_bytes,
            self.max_tokens,
            self.upstream_status,
            self.answered_bytes,
        )
