"""
Measure, and print a table.

Each contender runs as one process (nginx as its master and one worker). All are started first, and measured in turn,
several times; the table has the medians. CPU time is what the operating system counts for the proxy's processes; wall
time is from the first request to the last answer, divided by their number.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import attrs

from thrtwisted.redis.embedded import SOCKET, installed_server, server_command

from .contenders import Contender, contenders
from .processes import free_ports, running, spent


@attrs.frozen
class Sample:
    """One measurement, in microseconds for a request."""

    cpu: float
    redis: float
    wall: float
    median: float
    p99: float


def main() -> int:
    """Measure everybody."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--requests", type=int, default=4000, help="requests of one measurement")
    parser.add_argument("--connections", type=int, default=32, help="connections that send them")
    parser.add_argument("--slots", type=int, default=8, help="slots where requests are to wait")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a response's body")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    options = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.error("the CPU time of processes is read from /proc, which is not here; run it on Linux")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ports = free_ports()
        redis = stack.enter_context(valkey(directory))
        backend = next(ports)
        command = [sys.executable, "-m", "bench.backend", str(backend), str(options.size)]
        stack.enter_context(running(command, backend, directory))
        url = f"unix://{directory / SOCKET}"
        direct = Contender("the backend alone", backend, [])
        entries: list[tuple[Contender, int | None]] = [(direct, None)]
        for contender in contenders(directory, ports, backend, url, options.slots):
            started = running(contender.command, contender.port, directory)
            entries.append((contender, stack.enter_context(started)))
        samples: dict[str, list[Sample]] = {contender.name: [] for contender, _ in entries}
        for number in range(options.rounds + 1):
            for contender, pid in entries:
                progress(f"round {number}: {contender.name}")
                requests = options.requests if number else options.requests // 4  # the first one warms up
                sample = measure(contender, pid, redis, requests, options.connections)
                if number:
                    samples[contender.name].append(sample)
        progress("")
    print(table(samples, options))
    return 0


@contextlib.contextmanager
def valkey(directory: Path) -> Iterator[int]:
    """A Redis server on a unix socket in the directory; its process id."""
    command = server_command(installed_server(), str(directory))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b"Ready to accept" in line:
            break
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def measure(contender: Contender, pid: int | None, redis: int, requests: int, connections: int) -> Sample:
    """Send requests through a proxy, and see what they cost."""
    cpu, redis_cpu = (spent(pid) if pid else 0.0), spent(redis)
    command = [sys.executable, "-m", "bench.load", str(contender.port), str(requests), str(connections)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    load = json.loads(said)
    cpu, redis_cpu = (spent(pid) if pid else 0.0) - cpu, spent(redis) - redis_cpu
    each = 1e6 / requests
    return Sample(
        cpu=cpu * each,
        redis=redis_cpu * each if contender.uses_redis else 0.0,
        wall=load["elapsed"] * each,
        median=load["median"] * 1e6,
        p99=load["p99"] * 1e6,
    )


def table(samples: dict[str, list[Sample]], options: argparse.Namespace) -> str:
    """What was found, as Markdown, with the machine."""
    middle = {
        name: Sample(*(statistics.median(column) for column in zip(*map(attrs.astuple, found), strict=True)))
        for name, found in samples.items()
    }
    base = middle["twisted.web.proxy"]
    lines = [
        f"{machine()}. {options.requests} requests on {options.connections} connections, "
        f"answers of {options.size} bytes; medians of {options.rounds} rounds.",
        "",
        "| | CPU of the proxy, µs/request | ratio | CPU of Redis, µs/request | wall, µs/request | ratio "
        "| median, ms | p99, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in middle.items():
        cpu = f"{found.cpu:.0f} | {found.cpu / base.cpu:.2f}" if found.cpu else " | "
        redis = f"{found.redis:.0f}" if found.redis else ""
        lines.append(
            f"| {name} | {cpu} | {redis} | {found.wall:.0f} | {found.wall / base.wall:.2f} "
            f"| {found.median / 1000:.1f} | {found.p99 / 1000:.1f} |"
        )
    return "\n".join(lines)


def progress(text: str) -> None:
    """Say on a terminal how far it is."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def machine() -> str:
    """Where it was measured."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = ", ".join(f"{name} {version(name)}" for name in ("thrtwisted", "Twisted") if installed(name))
    return f"{model}, {os.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}, {packages}"


def installed(name: str) -> bool:
    """Whether a package's version is known."""
    with contextlib.suppress(Exception):
        return bool(version(name))
    return False


if __name__ == "__main__":
    sys.exit(main())
