"""Processes of a measurement, and what the operating system says that they have spent."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

#: How often the operating system counts, in a second.
TICKS = os.sysconf("SC_CLK_TCK")


def free_ports() -> Iterator[int]:
    """Ports that nobody listens at."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        yield port


@contextlib.contextmanager
def running(command: list[str], port: int, directory: Path) -> Iterator[int]:
    """Run a server until the end of the block; its process id, once it listens."""
    output = directory / f"{port}.output"
    with spawned(command, output) as process:
        deadline = time.monotonic() + 20
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not listen:\n{output.read_text(errors='replace')}")
            time.sleep(0.05)
        yield process.pid


@contextlib.contextmanager
def spawned(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block; what it says goes to a file."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def spent(pid: int) -> float:
    """Seconds of CPU time that a process and its children have used so far."""
    total = _spent(pid)
    for child in _children(pid):
        total += spent(child)
    return total


def _spent(pid: int) -> float:
    """Seconds of one process: in nanoseconds by its threads where the kernel counts so, else in ticks."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return sum(int(_read(f"/proc/{pid}/task/{thread}/schedstat").split()[0]) for thread in threads) / 1e9
    except (FileNotFoundError, IndexError):
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
