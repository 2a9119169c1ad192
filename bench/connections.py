"""
What connections cost that do nothing, or next to nothing: the proxy's memory, and other clients' time.

C{python -m bench.connections --help} says how. Take the times as ratios: all processes share one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .contenders import TWISTD
from .holding import files
from .processes import free_ports, running

CONFIG = """
listen = "tcp:{port}:interface=127.0.0.1"
[backend.app]
url = "http://127.0.0.1:{backend}"
[[limit]]
name = "user"
key = "header:X-User"
max_concurrent = 100
[[rule]]
when = {{ path = "/hello" }}
then = {{ set_status_code = 204 }}
[bounds]
connections = 0
connections_per_client = 0
head_timeout = 600.0
idle_timeout = 600.0
body_min_rate = 0
"""

#: How often a client is measured at either proxy.
TURNS = 9

#: Each kind of connection in the order of L{bench.holding}'s arguments.
KINDS = ("silent", "idle, after a request", "sending a head", "sending a body")


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.connections", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--count", type=int, default=5000, help="connections of each kind")
    parser.add_argument("--slow", type=int, default=1000, help="of them, where they are slow ones")
    parser.add_argument(
        "--requests", type=int, default=100, help="requests of another client, one after the other"
    )
    options = parser.parse_args()
    most = files()
    if most < options.count + options.slow + 100:
        parser.error(f"a process may open {most} files here: measure with fewer connections")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ports = free_ports()
        backend = next(ports)
        command = [sys.executable, "-m", "bench.backend", str(backend), "1024"]
        stack.enter_context(running(command, backend, directory))
        print(
            "| connections | memory of each, kB | another client's median, ratio | 95th percentile, ratio |"
        )
        print("| --- | ---: | ---: | ---: |")
        slow = options.slow
        crowds = [
            (f"{count} {kind}", [count if each == kind else 0 for each in KINDS])
            for kind, count in zip(KINDS, (options.count, options.count, slow, slow), strict=True)
        ]
        crowds.append(
            (f"{options.count} idle and {slow} slow", [0, options.count, slow // 2, slow - slow // 2])
        )
        for name, counts in crowds:
            # Processes of its own for each: what memory one has had before is not given back.
            with (
                proxy(directory, next(ports), backend) as alone,
                proxy(directory, next(ports), backend) as crowded,
            ):
                print(row(name, counts, alone[0], *crowded, options.requests), flush=True)
    return 0


@contextlib.contextmanager
def proxy(directory: Path, port: int, backend: int) -> Iterator[tuple[int, int]]:
    """A proxy; its port and process id."""
    config = directory / f"{port}.toml"
    config.write_text(CONFIG.format(port=port, backend=backend))
    log = f"--logfile={directory}/{port}.log"
    with running([*TWISTD, log, "thrproxy", "--config", str(config)], port, directory) as pid:
        yield port, pid


def row(name: str, counts: list[int], alone: int, port: int, pid: int, requests: int) -> str:
    """Measure one crowd, beside a proxy without it."""
    for each in alone, port, port:
        load(each, requests)  # what is made once
    before = memory(pid)
    with holding(port, counts):
        cost = (memory(pid) - before) / sum(counts) / 1000
        times = [(load(alone, requests), load(port, requests)) for _ in range(TURNS)]
    # Others on the machine can only make a turn slower: the best of each tells what the proxy needs.
    ratios = [
        min(one[what] for _, one in times) / min(one[what] for one, _ in times) for what in ("median", "p95")
    ]
    return f"| {name} | {cost:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |"


def load(port: int, requests: int) -> dict[str, float]:
    """The times of a client that sends one request after the other."""
    command = [sys.executable, "-m", "bench.load", str(port), str(requests), "1"]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


@contextlib.contextmanager
def holding(port: int, counts: list[int]) -> Iterator[None]:
    """Hold connections; none of them may be closed meanwhile."""
    command = [sys.executable, "-m", "bench.holding", str(port), *map(str, counts)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError("the connections could not be opened")
    yield
    process.stdin.close()
    closed = json.loads(process.stdout.read())
    process.wait()
    if any(closed.values()):
        raise RuntimeError(f"connections were closed: {closed}")


def memory(pid: int) -> int:
    """Bytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the process has no memory")


if __name__ == "__main__":
    sys.exit(main())
