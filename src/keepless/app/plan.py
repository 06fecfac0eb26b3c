"""What a supervisor tells the processes it starts: settings, where to listen, which engines are there.

The plan goes through a pipe, never through arguments or the environment (both are readable by others of the user).
"""

import msgspec

from keepless.config import Settings

__all__ = ["EngineAt", "Plan", "decode", "encode"]


class EngineAt(msgspec.Struct, frozen=True):
    """A running embedded engine: its unix socket and the key it asks for."""

    model: str
    socket: str
    key: str


class Plan(msgspec.Struct, frozen=True):
    """For one serving process. Numbers are file descriptors that it inherits; -1 = none."""

    settings: Settings
    listening: int
    engines: list[EngineAt]
    counters: int = -1  # shared memory of the rate limits
    pulses: int = -1  # shared memory in which the engines' supervisor says how each is
    ready: int = -1  # a socket: one byte says that the process serves
    sweeps: bool = True


def encode(plan: Plan) -> bytes:
    """The plan as bytes for the pipe."""
    return msgspec.json.encode(plan)


def decode(data: bytes) -> Plan:
    """Read back what `encode` wrote."""
    return msgspec.json.decode(data, type=Plan)
