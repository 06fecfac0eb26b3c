"""The embedded engines of a process tree: started together, ready together, stopped together.

Holds: `Engines`. Leaves out: what an engine is (inference.embedded), who asks it (workers).
"""

from pathlib import Path
from typing import Final

from keepless.app.plan import EngineAt
from keepless.config import EMBEDDED, Engine, Settings
from keepless.errors import ConfigError
from keepless.inference.embedded.fleet import is_missing, supervised
from keepless.inference.embedded.pulse import Pulses, State

__all__ = ["Engines"]

_READY_S: Final = 120.0


class Engines:
    """Those of `settings`; their sockets and files are below `directory`, named after `name`."""

    def __init__(self, settings: Settings, directory: Path, name: str) -> None:
        content_limit = max(settings.limits.body_bytes, settings.limits.audio_bytes)
        self._all: Final = [
            supervised(model, directory, name=f"{name}-{index}", content_limit=content_limit)
            for index, model in enumerate(settings.models)
            if model.engine in EMBEDDED
        ]
        self.pulses: Final = Pulses(len(self._all))  # in the order of what `start` gives
        for number, engine in enumerate(self._all):
            engine.pulse = self.pulses[number]
            if is_missing(engine.model):
                self.pulses[number].tell(State.MISSING)

    def start(self) -> list[EngineAt]:
        """Start them; where they are. Raises `ConfigError` for one that does not start."""
        for engine in self._all:
            engine.start()
        for engine in self._all:
            # The others start with the first request.
            if engine.model.engine is Engine.LLAMA and not engine.wait_ready(_READY_S):
                raise ConfigError(f"the embedded engine of {engine.model.id} does not start; see the log")
        return [EngineAt(engine.model.id, str(engine.socket), engine.key) for engine in self._all]

    def stop(self) -> None:
        """Stop them. Idempotent."""
        for engine in self._all:
            engine.stop()
