"""The gateway's figures: requests and streams a second, what the proxy adds to latency, CPU and memory.

Cells (name, streamed, connections, microseconds between events): `ns` is not streamed, `st` is streams that the mock
sends in one write, `paced` is streams of 50 events a second, where nothing arrives together. Each repeat goes through
all targets in a random order; a figure is the median of the repeats, its spread their smallest and largest.
"""

import random
import signal
import socket
import statistics
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.running import Load, Machine, Running
from benchmarks.targets import Target, body

__all__ = ["CELLS", "DIRECT", "Figures", "measure", "slow_readers"]

DIRECT = "direct"  # to the mock itself: the ceiling of the set-up
_READERS = 16


@dataclass(frozen=True)
class Cell:
    """What the load generator does."""

    connections: int
    stream: bool = False
    pace_us: int = 0
    seconds: float = 3.0
    warm: float = 0.7


CELLS = {
    "ns1": Cell(1, seconds=2.0),
    "ns16": Cell(16),
    "ns64": Cell(64),
    "st16": Cell(16, stream=True),
    "paced64": Cell(64, stream=True, pace_us=20_000, seconds=5.0, warm=1.0),
}

Figures = dict[str, dict[str, dict[str, list[float]]]]  # target -> cell -> figure -> one value a repeat


def measure(machine: Machine, cells: list[str], repeats: int, *, slow: dict[str, float]) -> Figures:
    """Go through all cells of all targets `repeats` times. `slow`: cells of a slow target are shortened to this."""
    figures: Figures = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for repeat in range(repeats):
        names = [DIRECT, *machine.running]
        random.shuffle(names)
        for name in names:
            for cell in cells:
                try:
                    found = _cell(machine, name, CELLS[cell], slow.get(name))
                except subprocess.SubprocessError:
                    found = {"rps": 0.0}
                if not found["rps"]:
                    print(f"{repeat + 1}/{repeats} {name:10} {cell:8} answers nothing any more: left out", flush=True)
                    machine.leave_out(name)
                    break
                for figure, value in found.items():
                    figures[name][cell][figure].append(value)
                shown = " ".join(f"{figure}={value:.4g}" for figure, value in found.items())
                print(f"{repeat + 1}/{repeats} {name:10} {cell:8} {shown}", flush=True)
    return figures


def _cell(machine: Machine, name: str, cell: Cell, seconds: float | None) -> dict[str, float]:
    one = machine.running.get(name)
    target = Target(DIRECT, lambda _: []) if one is None else one.target
    data = body(target.model, stream=cell.stream, pace_us=cell.pace_us)
    port = machine.mock_port if one is None else one.port
    if one is not None:
        one.signal(signal.SIGCONT)
        time.sleep(0.5)
    try:
        before, busy = (0.0 if one is None else one.cpu_s()), _others_s(machine)
        began = time.monotonic()
        load = machine.load(port, target.path, target.key, data, cell.connections, seconds or cell.seconds, cell.warm)
        elapsed = time.monotonic() - began
        used = 0.0 if one is None else one.cpu_s() - before
        found = _figures(load, used, streamed=cell.stream)
        found["busy"] = (_others_s(machine) - busy) / elapsed / 2
        if one is not None:
            found["rss_mb"], found["pss_mb"] = one.memory_mb(), one.memory_mb("Pss")
    finally:
        if one is not None:
            one.signal(signal.SIGSTOP)
    return found


def _figures(load: Load, cpu_s: float, *, streamed: bool) -> dict[str, float]:
    found = {
        "rps": load["rps"],
        "p50_us": load["p50_us"],
        "p99_us": load["p99_us"],
        "failed": load["failed"] + load["lost"],
        "cpu_us": cpu_s * 1e6 / max(load["all"], 1),
    }
    if streamed:
        found |= {
            "events": load["events_per_second"],
            "cpu_event_us": cpu_s * 1e6 / max(load["events_all"], 1),
            "transit_p50_us": load["transit_p50_us"],
            "transit_p99_us": load["transit_p99_us"],
        }
    return found


def _others_s(machine: Machine) -> float:
    """CPU seconds that neither a target nor the instruments used: everything that the machine did, but ours."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    ours = sum(one.cpu_s() for one in machine.running.values()) + machine.instruments_s()
    return (sum(ticks) - ticks[3] - ticks[4]) / 100 - ours


def slow_readers(machine: Machine, name: str, header: str = "", seconds: float = 6.0) -> dict[str, float]:
    """Resident size while clients hardly read streams of 5 MB each: before, and at most during. `header`: one more."""
    one = machine.running[name]
    one.signal(signal.SIGCONT)
    time.sleep(0.5)
    before = one.memory_mb()
    clients = [_reader(one, header) for _ in range(_READERS)]
    most, until = before, time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            for client in clients:
                client.recv(4096)
            most = max(most, one.memory_mb())
            time.sleep(0.1)
    finally:
        for client in clients:
            client.close()
        time.sleep(0.5)
        one.signal(signal.SIGSTOP)
    return {"before_mb": before, "most_mb": most, "streams": float(_READERS)}


def _reader(one: Running, header: str) -> socket.socket:
    data = body("long-model", stream=True)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.settimeout(10)
    client.connect(("127.0.0.1", one.port))
    head = f"POST {one.target.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.target.key}\r\n{header}"
    client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def median(figures: Figures, name: str, cell: str, figure: str) -> float | None:
    """The median of the repeats, None when it was not measured."""
    values = figures.get(name, {}).get(cell, {}).get(figure)
    return statistics.median(values) if values else None


def table(figures: Figures, cells: list[str]) -> str:
    """All targets, in Markdown: medians, and the spread of requests a second."""
    lines = [
        "| target | cell | req/s (least to most) | p50 us | p99 us | CPU us each | CPU us an event | RSS / PSS MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in figures:
        for cell in cells:
            values = figures[name].get(cell)
            if values is None:
                continue
            rps = values["rps"]
            spread = f"{statistics.median(rps):,.0f} ({min(rps):,.0f} to {max(rps):,.0f})"
            rest = [_text(median(figures, name, cell, figure)) for figure in ("p50_us", "p99_us", "cpu_us")]
            event = _text(median(figures, name, cell, "cpu_event_us"))
            memory = [_text(median(figures, name, cell, figure)) for figure in ("rss_mb", "pss_mb")]
            lines.append(f"| {name} | {cell} | {spread} | {' | '.join(rest)} | {event} | {' / '.join(memory)} |")
    return "\n".join(lines)


def ratios(figures: Figures) -> str:
    """Keepless against each target: what issue by issue is asked for is a ratio, never an absolute figure."""
    lines = [
        "| against | ns16 req/s | ns16 added p99 | st16 CPU a stream | paced64 CPU an event |",
        "|---|---|---|---|---|",
    ]
    base = median(figures, DIRECT, "ns16", "p99_us") or 0.0
    for name in figures:
        if name in ("keepless", DIRECT):
            continue
        parts = []
        for cell, figure, less in (
            ("ns16", "rps", 0.0),
            ("ns16", "p99_us", base),
            ("st16", "cpu_us", 0.0),
            ("paced64", "cpu_event_us", 0.0),
        ):
            own, other = median(figures, "keepless", cell, figure), median(figures, name, cell, figure)
            parts.append("-" if own is None or not other else f"{(own - less) / (other - less):.2f}")
        lines.append(f"| {name} | {' | '.join(parts)} |")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "-" if value is None or value == 0 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
