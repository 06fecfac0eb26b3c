"""The engine's own process: llama.cpp's HTTP server (by way of xllamacpp) on a unix socket, told to remember nothing.

`python -m keepless.inference.embedded.llama_process`, started by `llama.LlamaProcess` with a socket as standard input
and a scrubbed environment. Holds: the child's main. Leaves out: restarting, requests.

The steps: 1. No core dumps, not traceable, dies with who started it. 2. One line of settings comes in on the socket,
the access key with it (on the command line `ps` would show it). 3. The weights' SHA-256 is compared when one is pinned.
4. The server is made with every parameter that keeps something of a request switched off; of a tuned model with its
adapter too, which comes as an anonymous file in memory (descriptor 3) and answers only for requests that name it.
5. Its memory is bounded from here on. `ready` goes out; the end of the socket ends the process.

What cannot be promised: the engine's memory may hold traces of a prompt until it is overwritten or the process ends.
"""

import hashlib
import os
import resource
import socket
from pathlib import Path
from typing import Final

import msgspec
import xllamacpp

from keepless.inference.embedded.child import harden, read_line
from keepless.inference.embedded.engine import EngineSettings, Word

__all__ = ["main"]

_ADAPTER: Final = 3  # descriptor
_GROWTH_BYTES: Final = 1024**3  # a request that takes more than this ends the engine, which is started again
_SILENT: Final = -1  # below every level the runtime has; prompts appear in its log from level 5 on


def main() -> None:
    """Serve until the other end of standard input is closed."""
    harden()
    control = socket.socket(fileno=os.dup(0))
    settings = msgspec.json.decode(read_line(control), type=EngineSettings)
    word = _check_weights(settings)
    server = None
    if word is Word.READY:
        try:
            server = xllamacpp.Server(_parameters(settings))
        except (RuntimeError, ValueError, OSError):  # the texts name files: not passed on
            word = Word.NOT_LOADED
    if settings.adapter:
        os.close(_ADAPTER)  # the server has its own copy
    _bound_growth()
    control.sendall(word.value.encode("ascii") + b"\n")
    if server is not None:
        while control.recv(64):
            pass
    # The server's threads are not joined: they have nothing to save.
    os._exit(0 if server is not None else 1)


def _bound_growth() -> None:
    """Bound the memory that is taken from now on. What requests need is reserved when the server is made."""
    data_pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
    limit = data_pages * resource.getpagesize() + _GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _check_weights(settings: EngineSettings) -> Word:
    try:
        with Path(settings.weights).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if settings.sha256 is not None else None
    except OSError:
        return Word.WEIGHTS_MISSING
    return Word.READY if found == settings.sha256 else Word.WEIGHTS_CHANGED


def _parameters(settings: EngineSettings) -> xllamacpp.CommonParams:
    p = xllamacpp.CommonParams()
    p.model.path = settings.weights
    p.model_alias = {settings.alias}
    p.hostnames = [settings.socket]
    p.api_keys = [settings.key]
    p.n_parallel = settings.parallel
    p.n_ctx = settings.parallel * settings.context
    p.cpuparams.n_threads = settings.threads
    p.cpuparams_batch.n_threads = settings.threads
    # One thread a connection; the gateway's workers each hold as many connections as there are slots.
    p.n_threads_http = max(32, 8 * settings.parallel)
    # Nothing of a request is reused by another, or written anywhere.
    p.cache_prompt = False
    p.cache_ram_mib = 0
    p.cache_idle_slots = False
    p.n_ctx_checkpoints = 0
    p.n_cache_reuse = 0
    p.slot_prompt_similarity = 0.0
    p.slot_save_path = ""
    p.path_prompt_cache = ""
    p.verbosity = _SILENT
    # No page, no view of what is going on, no way in from a browser, nothing from the network.
    p.ui = False
    p.endpoint_slots = False
    p.endpoint_props = False
    p.endpoint_metrics = False
    p.cors_origins = ""
    p.offline = True
    if settings.adapter:
        # At scale 0: loaded at 1.0 it would answer for requests that do not name it too.
        p.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(f"/proc/self/fd/{_ADAPTER}", 0.0)]
    return p


if __name__ == "__main__":
    main()
