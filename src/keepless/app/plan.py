"""What a supervisor tells the processes it starts: settings, where to listen, which engines are there.

The plan goes through a pipe, never through arguments or the environment (both are readable by others of the user).
"""

import msgspec

from keepless.config import Settings
from keepless.inference.embedded.tuned_backend import HostAt
from keepless.jobs.port import Queue

__all__ = ["EngineAt", "HostPlan", "Plan", "decode", "decode_host", "encode"]


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
    tuned: HostAt | None = None  # who holds tuned models; None: they are not served
    queues: tuple[Queue, ...] = (Queue.BATCH,)  # of a process that runs jobs: what it takes jobs from


class HostPlan(msgspec.Struct, frozen=True):
    """For the process that holds tuned models. `listening`: a descriptor that it inherits; `key`: what workers show."""

    settings: Settings
    listening: int
    key: str
    name: str  # of its engines' sockets


def encode(plan: Plan | HostPlan) -> bytes:
    """The plan as bytes for the pipe."""
    return msgspec.json.encode(plan)


def decode(data: bytes) -> Plan:
    """Read back what `encode` wrote."""
    return msgspec.json.decode(data, type=Plan)


def decode_host(data: bytes) -> HostPlan:
    """The same for the host of tuned models."""
    return msgspec.json.decode(data, type=HostPlan)
