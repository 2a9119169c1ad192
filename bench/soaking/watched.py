"""A proxy's process as the operating system sees it, and as it sees itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from bench.processes import spent


@attrs.frozen
class State:
    """
    What a proxy has at a moment.

    @ivar descriptors: what each open one is, without numbers.
    @ivar files: its temporary files, with and without a name.
    @ivar objects: how many of each class that is watched.
    @ivar timers: what will be called later.
    @ivar blocks: of memory that Python has given out.
    @ivar memory: bytes that it has of the machine's.
    """

    descriptors: list[str]
    files: list[str]
    objects: dict[str, int]
    timers: list[str]
    readers: int
    blocks: int
    memory: int

    def more_than(self, before: State) -> list[str]:
        """What there is more of than before, a line for each."""
        lines = [f"temporary file {file}" for file in self.files]
        for what, count, base in (
            ("descriptors", len(self.descriptors), len(before.descriptors)),
            ("readers of the reactor", self.readers, before.readers),
            ("timers", len(self.timers), len(before.timers)),
        ):
            if count > base:
                lines.append(f"{what}: {count}, at the start {base}")
        for name, count in sorted(self.objects.items()):
            if count > before.objects.get(name, 0):
                lines.append(f"{name} objects: {count}, at the start {before.objects.get(name, 0)}")
        return lines


class Watched:
    """
    A proxy's process.

    @ivar name: what it is called in the output.
    @ivar port: where it listens.
    @ivar uses_redis: whether its gate is in Redis.
    """

    def __init__(
        self, name: str, port: int, process: subprocess.Popen[bytes], directory: Path, *, uses_redis: bool
    ) -> None:
        self.name = name
        self.port = port
        self.uses_redis = uses_redis
        self._process = process
        self._directory = directory

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    async def state(self) -> State:
        """
        Ask it for its state.

        @raise RuntimeError: it does not answer.
        """
        report = self._directory / "report"
        with suppress(FileNotFoundError):
            report.unlink()
        self._process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + 20
        while not report.exists():
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: the process does not answer any more")
            await asyncio.sleep(0.02)
        found: dict[str, Any] = json.loads(report.read_text())
        descriptors = self._descriptors()
        files = [link for link in descriptors if link.endswith("(deleted)")]
        files += [path.name for path in (self._directory / "tmp").iterdir()]
        return State(descriptors, files, memory=self._memory(), **found)

    def cpu(self) -> float:
        """Seconds of CPU time that it has used."""
        return spent(self.pid)

    def log(self) -> str:
        """What it has written."""
        return (self._directory / "log").read_text(errors="replace")

    def stop(self) -> int:
        """Stop it as a user does; its status."""
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _descriptors(self) -> list[str]:
        found = []
        for number in os.listdir(f"/proc/{self.pid}/fd"):
            with suppress(OSError):
                found.append(os.readlink(f"/proc/{self.pid}/fd/{number}"))
        return found

    def _memory(self) -> int:
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
