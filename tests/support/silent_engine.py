"""An engine's child for tests of who is loaded: it is up at once, takes its adapter, and does nothing."""

import os
import socket
import time

import msgspec

from keepless.inference.embedded.child import harden, read_line
from keepless.inference.embedded.engine import EngineSettings


def main() -> None:
    harden()
    control = socket.socket(fileno=os.dup(0))
    settings = msgspec.json.decode(read_line(control), type=EngineSettings)
    adapter = os.pread(3, 100, 0)
    if adapter == b"slow":
        time.sleep(600)
    if adapter == b"broken":
        control.sendall(b"not_loaded\n")
        os._exit(1)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(settings.socket)
    listening.listen()
    control.sendall(b"ready\n")
    while control.recv(64):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
