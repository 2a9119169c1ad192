"""Bodies that are larger than what a proxy may keep in memory."""

from __future__ import annotations

import contextlib
import http.client
import os
from typing import Any

from twisted.internet.threads import deferToThread

from tests.integration.application import PIECE, digest, pieces
from tests.integration.harness import Backend, IntegrationCase, Running, until

CONFIG = """
[backend.app]
url = "{url}"
max_spool = {max_spool}

[[limit]]
name = "one"
max_concurrent = {slots}

[bounds]
body_size = {spool}
spool = {spool}
"""

MAX_SPOOL = 256 * 1024 * 1024

#: Bytes that a proxy may need for such a body, more than it had before.
EXTRA = 60_000_000

#: Bytes that all bodies together may have on disk, where that is less than one of them needs.
SPOOL = 5_000_000


def on_disk(proxy: Running) -> int:
    """The bytes of files without a name that a process has open."""
    total = 0
    for entry in os.scandir(f"/proc/{proxy.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry.path).endswith(" (deleted)"):
                total += os.stat(entry.path).st_size
    return total


class BodyTests(IntegrationCase):
    """
    200 MB each way; every byte is looked at.

    @ivar size: the bytes.
    """

    size = 200_000_000

    async def proxied(
        self, max_spool: int = MAX_SPOOL, spool: int = 2 * MAX_SPOOL, slots: int = 1
    ) -> tuple[Backend, Running]:
        """A real server, and a proxy that has served a request."""
        backend = await self.gunicorn(threads=4)
        config = CONFIG.format(url=backend.url, max_spool=max_spool, spool=spool, slots=slots)
        proxy = await self.proxy(config)
        answer = await self.ask(proxy, "/bytes/small?size=200000").answer
        self.assertTrue(answer.complete)
        self.before = proxy.memory("VmRSS")
        return backend, proxy

    def small(self, proxy: Running) -> None:
        """The proxy has never been much larger than it was."""
        self.assertLess(proxy.memory("VmHWM") - self.before, EXTRA)

    async def begin(self, proxy: Running, method: str, target: str, body: Any = None) -> Any:
        """The response of a client that reads when it is told to."""
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
        self.addCleanup(client.close)

        def respond() -> http.client.HTTPResponse:
            headers = {"Content-Length": str(self.size)} if body else {}
            client.request(method, target, body, headers)
            return client.getresponse()

        return await deferToThread(respond)

    async def digest(self, response: Any) -> str:
        """Read a response to its end."""
        return await deferToThread(lambda: digest(iter(lambda: response.read(PIECE), b"")))

    async def test_upload(self) -> None:
        """A large upload arrives whole, and is not kept in memory."""
        _, proxy = await self.proxied()
        response = await self.begin(proxy, "POST", "/digest/upload", pieces(self.size))
        self.assertEqual(response.read().decode(), digest(pieces(self.size)))
        self.small(proxy)

    async def test_download(self) -> None:
        """A large download arrives whole, though the client begins to read after the backend is done."""
        backend, proxy = await self.proxied()
        response = await self.begin(proxy, "GET", f"/bytes/download?size={self.size}")
        await backend.ended("download")
        self.assertEqual(await self.digest(response), digest(pieces(self.size)))
        self.small(proxy)

    async def test_download_slowed_down(self) -> None:
        """A download larger than what may be spooled waits for its client, in the backend."""
        backend, proxy = await self.proxied(max_spool=1_000_000)
        response = await self.begin(proxy, "GET", f"/bytes/download?size={self.size}")
        first = await deferToThread(response.read, self.size // 2)
        self.assertEqual(backend.work("download")[0].end, float("inf"))
        rest = await deferToThread(response.read)
        self.assertEqual(digest([first, rest]), digest(pieces(self.size)))
        self.small(proxy)

    async def test_downloads_share_the_disk(self) -> None:
        """What several clients do not read is on disk up to C{spool}, all of it together; each gets all of its own."""
        _, proxy = await self.proxied(spool=SPOOL, slots=3)
        responses = [await self.begin(proxy, "GET", f"/bytes/{name}?size={self.size // 8}") for name in "abc"]
        await until(lambda: on_disk(proxy) > SPOOL - PIECE)
        for response in responses:
            reading = self.digest(response)
            self.assertLessEqual(on_disk(proxy), SPOOL)
            self.assertEqual(await reading, digest(pieces(self.size // 8)))
        self.assertEqual(on_disk(proxy), 0)
