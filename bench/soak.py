"""
Soak the proxy: clients of every kind for a time, and then a look at what is left. C{python -m bench.soak --help}.

Two proxies, one with a gate of its own and one with Redis's, stand before a real WSGI server and before a backend that
does everything wrong. Honest clients look at every byte that they get. The load comes in rounds; after each all clients
are gone, and the proxies must come to rest: no descriptor, file, object or timer more than before the first, nothing in
Redis, as much memory as after the second round. Whatever is not so is said in a line, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
from valkey import Valkey

from bench.__main__ import valkey
from bench.processes import free_ports, running
from bench.soaking.honest import HONEST, kept
from bench.soaking.hostile import HOSTILE
from bench.soaking.talk import Cut
from bench.soaking.watched import State, Watched
from thrtwisted.redis.embedded import SOCKET

NAMESPACE = "soak"

#: With every bound so near that it is met within a minute.
CONFIG = """
listen = "tcp:{port}:interface=127.0.0.1:backlog=1024"
{gate}
[backend.app]
url = "http://127.0.0.1:{good}"
max_concurrent = 8
abandon_timeout = 5.0
max_spool = 1_500_000

[backend.bad]
url = "http://127.0.0.1:{bad}"
response_timeout = 1.5
abandon_timeout = 2.0
idle_timeout = 1.5
down_time = 0.0

[[rule]]
when = {{ path = "glob:/bad/*" }}
then = {{ backend = "bad" }}

[[limit]]
name = "user"
key = "header:X-User"
max_concurrent = 3

[queue]
max_waiting = 40
timeout = 8.0

[bounds]
body_size = 5_000_000
head_timeout = 4.0
idle_timeout = 4.0
requests_per_connection = 5
connections = 300
spool = 12_000_000
"""
GATE = '[redis]\nurl = "{url}"\nnamespace = "{namespace}"\nlease = 2.0\n'

#: Seconds in which proxies must come to rest once all clients have gone: the bad backend's idle and abandon timeouts.
GRACE = 20.0

#: What there may be more of after the last round than after the one in the middle: bytes of memory, which come and go
#: by a megabyte, and blocks of Python's memory, of which there are some hundreds more or less. One for each exchange is
#: more than that.
BYTES, BLOCKS = 4_000_000, 500

#: The share of a CPU that a proxy at rest may use: heartbeats, and the grain of the measurement.
REST = 0.05


@attrs.define
class Findings:
    """
    What the clients have seen.

    @ivar outcomes: how often, by client and outcome.
    @ivar problems: a line for each, and how often.
    """

    outcomes: Counter[str] = attrs.Factory(Counter)
    problems: Counter[str] = attrs.Factory(Counter)


def main() -> int:
    """Soak; 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, in all rounds together")
    parser.add_argument("--clients", type=int, default=40, help="that are there at once")
    parser.add_argument(
        "--rounds", type=int, default=4, help="after each of which it is looked at what is left"
    )
    parser.add_argument("--seed", type=int, default=None, help="of what the clients do")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("memory is compared between rounds: there must be three at least")
    random.seed(options.seed)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        stack.enter_context(valkey(directory))
        url = f"unix://{directory / SOCKET}"
        proxies = start(stack, directory, url)
        problems = asyncio.run(soak(proxies, url, options))
        for proxy in proxies:
            status = proxy.stop()
            if status != -15:
                problems.append(f"{proxy.name}: ended with status {status}")
            for word in "Traceback", "Unhandled":
                if word in proxy.log():
                    problems.append(f"{proxy.name}: {word} in its log:\n{excerpt(proxy.log(), word)}")
        problems += [f"left in the directory for temporary files: {name}" for name in left_over(directory)]
    for problem in problems:
        print(f"LEFT: {problem}")
    print("soak: " + (f"{len(problems)} problems" if problems else "nothing is left"))
    return 1 if problems else 0


def start(stack: contextlib.ExitStack, directory: Path, url: str) -> list[Watched]:
    """Start backends and proxies."""
    ports = free_ports()
    good, bad = next(ports), next(ports)
    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{good}", "--worker-class=gthread"]
    stack.enter_context(
        running([*command, "--threads=8", "--backlog=512", "bench.soaking.application"], good, directory)
    )
    command = [sys.executable, "-m", "bench.soaking.misbehaving", str(bad)]
    stack.enter_context(running(command, bad, directory))
    gates = {"local gate": "", "Redis gate": GATE.format(url=url, namespace=NAMESPACE)}
    return [
        stack.enter_context(proxy(name, gate, next(ports), good, bad, directory / f"proxy-{number}"))
        for number, (name, gate) in enumerate(gates.items())
    ]


@contextlib.contextmanager
def proxy(name: str, gate: str, port: int, good: int, bad: int, directory: Path) -> Iterator[Watched]:
    """A proxy's process, which reports."""
    (directory / "tmp").mkdir(parents=True)
    config = directory / "config.toml"
    # Tables come after what belongs to none.
    text = CONFIG.format(port=port, good=good, bad=bad, gate=gate)
    config.write_text(text)
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "TMPDIR": str(directory / "tmp"),
        "REPORT": str(directory / "report"),
    }
    command = [sys.executable, "-m", "bench.soaking.reporting", "-n", "--pidfile="]
    process = subprocess.Popen(
        [*command, f"--logfile={directory / 'log'}", "thrproxy", "--config", str(config)],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield Watched(name, port, process, directory, uses_redis=bool(gate))
    finally:
        process.kill()
        process.wait()


async def soak(proxies: list[Watched], url: str, options: argparse.Namespace) -> list[str]:
    """All rounds; what is wrong."""
    findings = Findings()
    for proxy in proxies:
        await listening(proxy)
        await kept(proxy.port)  # what is made once and stays
    await asyncio.sleep(3.0)  # and what does not is gone
    history = {proxy.name: [await proxy.state()] for proxy in proxies}
    problems: list[str] = []
    for number in range(options.rounds):
        await load(proxies, options.seconds / options.rounds, options.clients, findings)
        states = await rest(proxies, {name: states[0] for name, states in history.items()}, url)
        for name, (state, left) in states.items():
            history[name].append(state)
            problems += [f"{name}, after round {number + 1}: {line}" for line in left]
            print(
                f"{name}, round {number + 1}: {state.memory / 1e6:.1f} MB, {state.blocks} blocks, "
                f"{len(state.descriptors)} descriptors, {len(state.timers)} timers, "
                f"{sum(state.objects.values())} objects",
                flush=True,
            )
    for name, states_of_one in history.items():
        problems += [f"{name}: {line}" for line in growth(states_of_one)]
    problems += await busy(proxies)
    for outcome, count in sorted(findings.outcomes.items()):
        print(f"{count:6d}  {outcome}")
    problems += [f"{count} times: {problem}" for problem, count in findings.problems.most_common()]
    return problems


async def listening(proxy: Watched) -> None:
    """Wait until a proxy listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.close()
            return
        except ConnectionError:
            if not proxy.running or time.monotonic() > deadline:
                raise RuntimeError(f"{proxy.name} does not listen:\n{proxy.log()}") from None
            await asyncio.sleep(0.05)


async def load(proxies: list[Watched], seconds: float, clients: int, findings: Findings) -> None:
    """Let clients do what they do, until the time is over: those who are not done then go away."""
    end = time.monotonic() + seconds
    kinds = [(kind, share, True) for kind, share in HONEST] + [
        (kind, share, False) for kind, share in HOSTILE
    ]
    weights = [share for _, share, _ in kinds]

    async def visits() -> None:
        while time.monotonic() < end:
            [(kind, _, honest)] = random.choices(kinds, weights)
            await visit(kind, random.choice(proxies), honest, findings)
            await asyncio.sleep(random.uniform(0, 0.05))

    workers = [asyncio.ensure_future(visits()) for _ in range(clients)]
    await asyncio.wait(workers, timeout=seconds + 1)
    for worker in workers:
        worker.cancel()
    for result in await asyncio.gather(*workers, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def visit(
    kind: Callable[[int], Awaitable[str]], proxy: Watched, honest: bool, findings: Findings
) -> None:
    """One client, from its coming to its going."""
    try:
        outcome = await kind(proxy.port)
    except (asyncio.TimeoutError, Cut, OSError) as error:
        outcome = repr(error)
        if honest or isinstance(error, asyncio.TimeoutError):
            findings.problems[f"{proxy.name}: {kind.__name__}: {error!r}"] += 1
    except Exception as error:
        outcome = type(error).__name__
        findings.problems[f"{proxy.name}: {kind.__name__}: {error!r}"] += 1
    findings.outcomes[f"{kind.__name__}: {outcome}"] += 1


async def rest(
    proxies: list[Watched], before: dict[str, State], url: str
) -> dict[str, tuple[State, list[str]]]:
    """
    Wait until the proxies have come to rest.

    @param before: what each had at rest.
    @return: for each its state, and what there is more of than before.
    """
    deadline = time.monotonic() + GRACE
    found: dict[str, tuple[State, list[str]]] = {}
    for proxy in proxies:
        state = await proxy.state()
        while True:
            # At any moment a heartbeat may be under way: at rest is who is so for a moment.
            left = state.more_than(before[proxy.name]) + (in_redis(url) if proxy.uses_redis else [])
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
            state = await proxy.state()
        found[proxy.name] = (state, left)
    return found


def in_redis(url: str) -> list[str]:
    """What of tickets and slots there is in Redis."""
    own = "{" + NAMESPACE + "}"
    with Valkey.from_url(url) as redis:
        keys = {key.decode() for key in redis.scan_iter(match=f"{own}*")}
        gate = {name.decode(): int(count) for name, count in redis.hgetall(f"{own}:gate").items()}
    lines = [f"key {key} in Redis" for key in sorted(keys - {f"{own}:owners", f"{own}:gate"})]
    lines += [
        f"{name} = {count} in Redis" for name, count in sorted(gate.items()) if count and is_count(name)
    ]
    return lines


def is_count(name: str) -> bool:
    """Whether a field of the gate counts tickets."""
    return name.startswith(("waiting", "held"))


def growth(states: list[State]) -> list[str]:
    """What has become more between the round in the middle and the last one."""
    middle, last = states[len(states) // 2], states[-1]
    lines = []
    for what, before, after, most in (
        ("bytes of memory", middle.memory, last.memory, BYTES),
        ("blocks of Python's memory", middle.blocks, last.blocks, BLOCKS),
    ):
        if after - before > most:
            lines.append(f"{what}: {after} after the last round, {before} after the one in the middle")
    return lines


async def busy(proxies: list[Watched]) -> list[str]:
    """Who does something though there is nothing to do."""
    lines = []
    for proxy in proxies:
        before, since = proxy.cpu(), time.monotonic()
        await asyncio.sleep(2.0)
        share = (proxy.cpu() - before) / (time.monotonic() - since)
        print(f"{proxy.name}: {share:.1%} of a CPU at rest")
        if share > REST:
            lines.append(f"{proxy.name}: uses {share:.1%} of a CPU with nothing to do")
    return lines


def left_over(directory: Path) -> list[str]:
    """Temporary files of the proxies."""
    return [path.name for path in directory.glob("proxy-*/tmp/*")]


def excerpt(log: str, word: str) -> str:
    """The lines after a word in a log."""
    return "\n".join(log[log.index(word) :].splitlines()[:30])


if __name__ == "__main__":
    sys.exit(main())
