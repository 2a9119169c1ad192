"""
What the gate costs Redis and a process: C{python -m bench.gate}.

It is no test, and has no threshold. Compare the lines of one run, not two runs: the processes, Redis and whatever else
the machine does share its processors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from thrtwisted.gate import Counter, Ticket
from thrtwisted.redis.embedded import SOCKET

from .__main__ import machine, progress, valkey
from .crowd import Crowd, Owner, costs, memory, script_time
from .processes import spent

#: Tickets at once, over how many processes, and the slots that there are for them.
LOADS = [
    *((at_once, processes, 2 * at_once) for at_once, processes in ((1, 1), (10, 1), (100, 1), (1000, 1))),
    *((at_once, processes, 2 * at_once) for at_once, processes in ((10, 2), (100, 2), (1000, 2))),
    *((at_once, processes, 2 * at_once) for at_once, processes in ((10, 4), (100, 4), (1000, 4))),
    *((at_once, processes, 10) for at_once, processes in ((100, 1), (1000, 1), (100, 2), (1000, 2))),
    *((at_once, processes, 10) for at_once, processes in ((100, 4), (1000, 4))),
]


@attrs.frozen
class Load:
    """What was found with tickets that come and go: by the second, or microseconds and numbers by the admission."""

    rate: float
    batches: float
    commands: float
    redis: float
    process: float
    median: float
    p99: float


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement with processes")
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements of each; the table has the medians"
    )
    parser.add_argument("--waiting", type=int, default=100_000, help="tickets that wait, at most")
    options = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.error("the CPU time of processes is read from /proc, which is not here; run it on Linux")
    print(f"{machine()}; Redis is Valkey on a unix socket.\n")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        pid = stack.enter_context(valkey(Path(directory)))
        client = stack.enter_context(_client(f"{directory}/{SOCKET}"))
        url = f"unix://{directory}/{SOCKET}"
        for part in (
            loads(client, url, pid, options.seconds, options.rounds),
            queues(client, options.waiting, options.rounds),
            changes(client, [size for size in (1000, 10_000, 30_000) if size <= options.waiting]),
        ):
            for line in part:
                progress("")
                print(line, flush=True)
            print()
    return 0


def _client(path: str) -> Any:
    import valkey as package

    return package.Valkey(unix_socket_path=path)


# Tickets that come and go -----------------------------------------------------------------------------------------


def loads(client: Any, url: str, pid: int, seconds: float, rounds: int) -> Iterator[str]:
    """Processes with a gate each, and as many tickets at once as they are given, all in one lane of two counters."""
    yield "### Admissions by load\n"
    yield (
        "| tickets at once | processes | slots | admissions/s | batches each | commands each | CPU of Redis, µs each "
        "| CPU of processes, µs each | wait, median ms | p99 ms |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for weighted in (False, True):
        for at_once, processes, slots in LOADS:
            if weighted and (at_once, processes) not in ((1, 1), (100, 2)):
                continue
            progress(f"{at_once} tickets at once, {processes} processes")
            arguments = [url, "bench", str(at_once // processes), str(slots), str(int(weighted))]
            found = [load(client, pid, arguments, processes, seconds) for _ in range(rounds)]
            middle = Load(
                *(statistics.median(column) for column in zip(*map(attrs.astuple, found), strict=True))
            )
            yield (
                f"| {at_once} | {processes} | {slots if slots < at_once else 'enough'}{', weighted' * weighted} "
                f"| {middle.rate:.0f} | {middle.batches:.2f} | {middle.commands:.1f} | {middle.redis:.0f} "
                f"| {middle.process:.0f} | {middle.median * 1000:.1f} | {middle.p99 * 1000:.1f} |"
            )


def load(client: Any, pid: int, arguments: list[str], processes: int, seconds: float) -> Load:
    """One measurement."""
    command = [sys.executable, "-m", "bench.tickets", *arguments]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in running:
        _hear(process)
    client.config_resetstat()
    cpu, began = spent(pid), time.perf_counter()
    for process in running:
        _say(process)
    time.sleep(seconds)
    commands = {name: found["calls"] for name, found in client.info("commandstats").items()}
    cpu, elapsed = spent(pid) - cpu, time.perf_counter() - began
    for process in running:
        _say(process)
    told = [json.loads(_hear(process)) for process in running]
    for process in running:
        process.communicate()
    admitted = sum(each["admitted"] for each in told)
    batches = commands.pop("cmdstat_evalsha")
    return Load(
        rate=admitted / elapsed,
        batches=batches / admitted,
        commands=sum(commands.values()) / admitted,
        redis=1e6 * cpu / admitted,
        process=1e6 * sum(each["cpu"] for each in told) / admitted,
        median=statistics.median(each["median"] for each in told),
        p99=max(each["p99"] for each in told),
    )


def _say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process has ended by itself")
    return line


# Tickets that wait ------------------------------------------------------------------------------------------------


def queues(client: Any, most: int, rounds: int) -> Iterator[str]:
    """Of 50 owners, in up to 2,000 lanes of three counters: how much the length of the queue matters."""
    yield "### One slot given away and one ticket more, by tickets that wait (50 processes, 2,000 lanes)\n"
    yield "| tickets waiting | | script, µs | ratio | memory, bytes for each |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    sizes = [size for size in (100, 1000, 10_000, 100_000) if size <= most]
    for weighted in (False, True):
        crowds, bytes_each = [], []
        for size in sizes:
            progress(f"{size} tickets wait")
            before = memory(client)
            crowds.append(Crowd(client, f"{weighted}-{size}", waiting=size, weighted=weighted))
            bytes_each.append((memory(client) - before) / size)
        progress("their cost")
        columns = zip(*costs(client, crowds, exchanges=100, rounds=3 * rounds), strict=True)
        middle = [statistics.median(column) for column in columns]
        for size, each, cost in zip(sizes, bytes_each, middle, strict=True):
            # What a namespace takes by itself would be most of it where few wait.
            shown = f"{each:.0f}" if size >= 10_000 else ""
            kind = "weighted, bounded" if weighted else ""
            yield f"| {size:,} | {kind} | {cost:.0f} | {cost / middle[0]:.2f} | {shown} |"
        for crowd in crowds:
            crowd.close()


# Processes that come and go ---------------------------------------------------------------------------------------


def changes(client: Any, sizes: list[int]) -> Iterator[str]:
    """What one process with many tickets costs at a time: how long nobody else is served."""
    yield "### A process with many tickets: how long its batches keep Redis busy\n"
    yield (
        "| tickets | they come: longest batch, ms | announced: longest batch, ms | all, ms "
        "| announced to an emptied Redis: longest, ms | all, ms | the process dies, ms |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for size in sizes:
        progress(f"a process with {size} tickets")
        owner, other = (Owner(client, "changes", character * 16) for character in "ab")
        tickets = [
            Ticket((Counter("app", 10), Counter(f"user={number % 500}", 5)), 1 + number % 99)
            for number in range(2000)
        ]
        other.send()
        owner.send()
        for number in range(size):
            owner.submit(tickets[number % len(tickets)])
        come = _busy(client, owner)
        owner.places.announce()
        known = _busy(client, owner)
        client.flushall()
        owner.places.announce()
        unknown = _busy(client, owner)
        other.places.announce()
        other.send()
        client.zadd("{changes}:owners", {owner.name: 1})
        before = script_time(client)
        other.send()
        death = (script_time(client) - before) / 1000
        yield (
            f"| {size:,} | {max(come):.0f} | {max(known):.0f} | {sum(known):.0f} "
            f"| {max(unknown):.0f} | {sum(unknown):.0f} | {death:.0f} |"
        )
        client.flushall()


def _busy(client: Any, owner: Owner) -> list[float]:
    """Milliseconds of each batch, until nothing is left to send."""
    marks = [script_time(client)]
    owner.send_all(lambda: marks.append(script_time(client)))
    return [(after - before) / 1000 for before, after in pairwise(marks)]


if __name__ == "__main__":
    sys.exit(main())
