"""
Measure the relay beside the direct way: the same requests, the same backend, the same Redis, in turns.

The direct way is one process, the relay is a front and a worker; each has as many places for requests as the other.
Long bodies go over a second relay, too, with more of them in Redis at once. CPU time is what the operating system
counts for each process, divided by the requests. Take the figures as ratios: all processes share one machine, and the
load and the backend have their part of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from thrtwisted.redis.embedded import SOCKET

from .__main__ import machine, progress, valkey
from .contenders import TWISTD
from .processes import free_ports, running, spawned, spent

CONFIG = """
listen = "tcp:{port}:interface=127.0.0.1"
[redis]
url = "{redis}"
namespace = "{name}"
[backend.small]
url = "http://127.0.0.1:{small}"
{limit}
[backend.large]
url = "http://127.0.0.1:{large}"
{limit}
[[rule]]
when = {{ path = "/large" }}
then = {{ backend = "large" }}
"""

MEGABYTE = 1_000_000

#: What the second relay has in Redis of one exchange, at most.
LITTLE = 2**18


@attrs.frozen
class Way:
    """
    One way to the backend.

    @ivar port: where clients come in.
    @ivar processes: their ids: the one with the clients, and the worker, if there is one.
    @ivar for_long: whether it differs for long bodies only.
    """

    name: str
    port: int
    processes: list[int]
    for_long: bool = False


@attrs.frozen
class Load:
    """
    What is sent.

    @ivar requests: how many, for a measurement of full length.
    @ivar upload: bytes of each request's body.
    """

    name: str
    requests: int
    connections: int
    target: str = "/small"
    upload: int = 0

    @property
    def is_long(self) -> bool:
        return self.target == "/large" or self.upload > 0


@attrs.frozen
class Sample:
    """
    One measurement.

    @ivar rate: requests in a second.
    @ivar median: of an answer's time, in seconds; and the 99th percentile.
    @ivar front: CPU time in seconds for a request, of the process with the clients; and of the worker, and of Redis.
    """

    rate: float
    median: float
    p99: float
    front: float
    worker: float
    redis: float

    @property
    def together(self) -> float:
        return self.front + self.worker + self.redis


def main() -> int:
    """Measure all ways."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.relay", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--requests", type=int, default=2000, help="small requests of one measurement")
    parser.add_argument("--connections", type=int, default=32, help="connections that send them")
    parser.add_argument("--places", type=int, default=8, help="places where requests are to wait")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    options = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.error("the CPU time of processes is read from /proc, which is not here; run it on Linux")
    many, requests = options.connections, options.requests
    large = max(requests // 20, 8)
    plenty = [
        Load("1 kB, 1 client", requests // 4, 1),
        Load(f"1 kB, {many} clients", requests, many),
        Load("answers of 1 MB, 1 client", large, 1, "/large"),
        Load("answers of 1 MB, 8 clients", large, 8, "/large"),
        Load("uploads of 1 MB, 8 clients", large, 8, "/small", MEGABYTE),
    ]
    few = [Load(f"1 kB, {many} clients, {options.places} places", requests, many)]
    samples: dict[tuple[str, str], list[Sample]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ports = free_ports()
        redis = stack.enter_context(valkey(directory))
        backends = []
        for size in 1024, MEGABYTE:
            backends.append(next(ports))
            command = [sys.executable, "-m", "bench.backend", str(backends[-1]), str(size)]
            stack.enter_context(running(command, backends[-1], directory))
        for places, loads in (many, plenty), (options.places, few):
            with ways(directory, ports, backends, places) as all_ways:
                measure(all_ways, loads, redis, options.rounds, samples)
    progress("")
    print(
        table(
            samples,
            f"{machine()}. {requests} small and {large} large requests; medians of {options.rounds} rounds.",
        )
    )
    return 0


@contextlib.contextmanager
def ways(directory: Path, ports: Iterator[int], backends: list[int], places: int) -> Iterator[list[Way]]:
    """Start the direct way and the relays."""

    def command(name: str, limit: str, more: str = "") -> tuple[list[str], int]:
        port = next(ports)
        file = directory / f"{port}.toml"
        url = f"unix://{directory / SOCKET}"
        small, large = backends
        file.write_text(
            CONFIG.format(port=port, redis=url, name=name, small=small, large=large, limit=limit) + more
        )
        return [*TWISTD, f"--logfile={directory}/{port}.log", "thrproxy", "--config", str(file)], port

    with contextlib.ExitStack() as stack:
        direct, port = command("direct", f"max_concurrent = {places}")
        found = [Way("direct", port, [stack.enter_context(running(direct, port, directory))])]
        for name, inline in (("relay", ""), ("relay, `max_inline` 256 KiB", f"max_inline = {LITTLE}\n")):
            namespace = f"relay{len(found)}"
            front, port = command(namespace, "", f'[relay]\nrole = "front"\n{inline}')
            worker, number = command(
                namespace, "", f'[relay]\nrole = "worker"\nconcurrency = {places}\n{inline}'
            )
            process = stack.enter_context(spawned(worker, directory / f"{number}.output"))
            ids = [stack.enter_context(running(front, port, directory)), process.pid]
            found.append(Way(name, port, ids, bool(inline)))
        yield found


def measure(
    all_ways: list[Way],
    loads: list[Load],
    redis: int,
    rounds: int,
    samples: dict[tuple[str, str], list[Sample]],
) -> None:
    """Send each load over all ways, one after the other, several times."""
    for number in range(rounds + 1):
        for load in loads:
            for way in all_ways:
                if way.for_long and not load.is_long:
                    continue
                progress(f"round {number}: {load.name}, {way.name}")
                # The first round warms up, and waits for the worker.
                requests = load.requests if number else max(load.requests // 10, load.connections)
                sample = send(way, load, redis, requests)
                if number:
                    samples.setdefault((load.name, way.name), []).append(sample)


def send(way: Way, load: Load, redis: int, requests: int) -> Sample:
    """Send requests, and see what they cost."""
    ids = [*way.processes, redis]
    before = [spent(pid) for pid in ids]
    arguments = map(str, (way.port, requests, load.connections, load.target, load.upload))
    said = subprocess.run(
        [sys.executable, "-m", "bench.load", *arguments], stdout=subprocess.PIPE, check=True
    ).stdout
    found = json.loads(said)
    cost = [(spent(pid) - earlier) / requests for pid, earlier in zip(ids, before, strict=True)]
    return Sample(
        rate=requests / found["elapsed"],
        median=found["median"],
        p99=found["p99"],
        front=cost[0],
        worker=cost[1] if len(cost) == 3 else 0.0,
        redis=cost[-1],
    )


def table(samples: dict[tuple[str, str], list[Sample]], heading: str) -> str:
    """What was found, as Markdown."""
    lines = [
        heading,
        "",
        "| | | requests/s | ratio | median, ms | p99, ms | CPU, µs/request: proxy or front | worker | Redis "
        "| together | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    base = None
    for (load, way), found in samples.items():
        each = Sample(*(statistics.median(column) for column in zip(*map(attrs.astuple, found), strict=True)))
        if way == "direct":
            base = each
        assert base is not None
        cpu = " | ".join(
            f"{seconds * 1e6:.0f}" if seconds else "" for seconds in (each.front, each.worker, each.redis)
        )
        lines.append(
            f"| {load} | {way} | {each.rate:.0f} | {each.rate / base.rate:.2f} "
            f"| {each.median * 1000:.1f} | {each.p99 * 1000:.1f} | {cpu} "
            f"| {each.together * 1e6:.0f} | {each.together / base.together:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
