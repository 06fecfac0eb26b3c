"""A trainer for tests of the port: it does what the examples say. Run as a training run's process."""

import os
import signal
import socket
import time

import msgspec

from keepless.training.order import Fault, Order, Prepared, Progress
from keepless.training.wire import NUMBERS, Kind, receive, send


def main() -> None:
    connection = socket.socket(fileno=os.dup(0))
    told = [receive(connection) for _ in range(4)]
    assert [kind for kind, _ in told] == [Kind.ORDER, Kind.EXAMPLES, Kind.VALIDATION, Kind.RESUME]
    order = msgspec.json.decode(told[0][1], type=Order)
    what = told[1][1].decode()
    if what == "exit":
        os._exit(9)
    if what == "fault":
        send(connection, Kind.FAULT, msgspec.json.encode(Fault.OUT_OF_MEMORY))
    if what == "nonsense":
        send(connection, Kind.PROGRESS, b"{}")
    if what == "order":
        send(connection, Kind.ORDER, b"{}")
    if what == "alarm":
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(600)
    if what == "hang":
        time.sleep(600)
    prepared = Prepared(examples=len(told[1][1]), sequences=len(told[2][1]), tokens=len(told[3][1]), cut=0, steps=2)
    send(connection, Kind.PREPARED, msgspec.json.encode(prepared))
    if what == "save":
        receive(connection)
    if what == "seen":
        seen = [",".join(sorted(os.environ)), *(os.readlink(f"/proc/self/fd/{name}") for name in (1, 2))]
        seen.append(",".join(os.path.realpath(link) for link in os.scandir("/proc/self/fd")))
        send(connection, Kind.CHECKPOINT, NUMBERS.pack(1, 0), "|".join(seen).encode())
    progress = Progress(step=1, total=2, loss=float(order.seed), token_accuracy=0.5, tokens=3)
    send(connection, Kind.PROGRESS, msgspec.json.encode(progress))
    send(connection, Kind.CHECKPOINT, NUMBERS.pack(1, 3), b"state")
    send(connection, Kind.FINISHED, NUMBERS.pack(2, 6), b"adapter")
    time.sleep(600)


if __name__ == "__main__":
    main()
