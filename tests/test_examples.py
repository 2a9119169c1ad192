"""The examples run, each as its first lines say, and the pages that show them show what runs."""

from __future__ import annotations

import os
import re
import signal
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests import valkey
from tests.forward.support import until
from tests.process import Child, end, python
from thrtwisted import Counter, LocalGate, Rate, Ticket

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


class SlowApplication(Resource):
    """
    What the examples stand before: it answers when the test wants it to.

    @ivar held: the requests that it works on.
    @ivar most: how many it ever worked on at once.
    @ivar targets: of all requests, in the order in which they came.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] = []
        self.most = 0
        self.targets: list[bytes] = []

    def render(self, request: Any) -> int:
        self.held.append(request)
        self.most = max(self.most, len(self.held))
        self.targets.append(request.uri)
        return NOT_DONE_YET

    def answer(self, request: Any) -> None:
        """Answer one of them."""
        self.held.remove(request)
        request.write(b"served " + request.uri)
        request.finish()


class ExampleTestCase(TestCase):
    """A slow application, and clients."""

    timeout = 60

    async def setUp(self) -> None:
        self.slow = SlowApplication()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(self.slow))
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"
        self.pool = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool.closeCachedConnections)
        self.agent = Agent(reactor, pool=self.pool)

    def run_python(self, *arguments: str, **environment: str) -> tuple[Child, Any]:
        """Run Python in a directory of its own."""
        self.patch(os, "environ", {**os.environ, **environment})
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        child, process = python(*arguments, directory=self.directory)
        self.addCleanup(end, child, process)
        return child, process

    @inlineCallbacks
    def get(self, url: str, **headers: str):
        """Ask at once; fires with the status and the body."""
        fields = Headers({name: [value] for name, value in headers.items()})
        response = yield self.agent.request(b"GET", url.encode(), fields)
        return response.code, (yield readBody(response))

    async def listening(self, child: Child) -> str:
        """The URL of a child, once it listens."""
        await child.said(b"Starting factory")
        [port] = re.findall(rb"Site starting on (\d+)", child.output)
        return f"http://127.0.0.1:{port.decode()}"

    async def check_limit(self, url: str) -> None:
        """Of requests with the header two are served at once, while others pass."""
        limited = [self.get(url, Foo="bar") for _ in range(10)]
        await until(lambda: len(self.slow.held) == 2)
        others = [self.get(url) for _ in range(8)]
        await until(lambda: len(self.slow.held) == 10)
        for request in self.slow.held[2:]:
            self.slow.answer(request)
        for left in range(10, 0, -1):
            await until(lambda left=left: len(self.slow.held) >= min(2, left))
            self.assertLessEqual(len(self.slow.held), 2)
            self.slow.answer(self.slow.held[0])
        for code, body in await gatherResults([*limited, *others]):
            self.assertEqual((code, body), (200, b"served " + self.slow.targets[-1]))

    async def stopped(self, child: Child, process: Any) -> int:
        """Stop a child with Ctrl-C; its exit status. It leaves nothing in its directory."""
        process.signalProcess("INT")
        status: int = await child.ended
        self.assertNotIn(b"Traceback", child.output + child.errors)
        self.assertEqual(os.listdir(self.directory), [])
        return status


class ConfigurationTests(ExampleTestCase):
    """Tests for examples/thr.toml."""

    async def test_limit(self) -> None:
        """With the example's configuration two requests with the header are served at once."""
        child, process = self.run_python(
            *("-c", TWISTD, "-n", "thrproxy", "--config", str(EXAMPLES / "thr.toml")),
            *("--listen", "tcp:0:interface=127.0.0.1", "--backend", self.url),
        )
        await self.check_limit(await self.listening(child))
        self.assertEqual(await self.stopped(child, process), -signal.SIGINT)


class EmbedTests(ExampleTestCase):
    """Tests for examples/embed.py."""

    async def check(self, *arguments: str) -> tuple[Child, Any]:
        """The program's own page is its own; what is below /app is the application's, and regulated."""
        child, process = self.run_python(*arguments, LISTEN="tcp:0:interface=127.0.0.1", BACKEND=self.url)
        url = await self.listening(child)
        self.assertEqual(await self.get(url + "/"), (200, b"This page is not the proxy's.\n"))
        self.assertEqual((await self.get(url + "/nothing"))[0], 404)
        await self.check_limit(url + "/app/a%2Fb?c")
        self.assertEqual(set(self.slow.targets), {b"/app/a%2Fb?c"})
        return child, process

    async def test_python(self) -> None:
        """It runs as a program."""
        child, process = await self.check(str(EXAMPLES / "embed.py"))
        self.assertIn(await self.stopped(child, process), (0, -signal.SIGINT))

    async def test_twistd(self) -> None:
        """It runs as a service of twistd."""
        child, process = await self.check("-c", TWISTD, "-n", "-o", "-y", str(EXAMPLES / "embed.py"))
        self.assertEqual(await self.stopped(child, process), -signal.SIGINT)


class BoundAFunctionTests(ExampleTestCase):
    """Tests for examples/bound_a_function.py."""

    async def serve(self, number: int) -> None:
        """Answer so many calls; two are always under way, and never more."""
        for left in range(number, 0, -1):
            await until(lambda left=left: len(self.slow.held) >= min(2, left))
            self.slow.answer(self.slow.held[0])
        self.assertEqual(self.slow.most, 2)

    async def test_one_process(self) -> None:
        """Without Redis two calls of one process are under way at once."""
        child, _ = self.run_python(str(EXAMPLES / "bound_a_function.py"), f"{self.url}/")
        await self.serve(10)
        self.assertEqual(await child.ended, 0)
        self.assertTrue(child.output.endswith(b"fetched 10\n"), child.output + child.errors)
        self.assertEqual(sorted(self.slow.targets), [b"/%d" % number for number in range(10)])

    async def test_two_processes(self) -> None:
        """With Redis two calls of two processes together are under way at once; nothing is left in it."""
        children = [
            self.run_python(str(EXAMPLES / "bound_a_function.py"), f"{self.url}/{name}/", valkey.url())[0]
            for name in "ab"
        ]
        with valkey.client() as client:
            await until(lambda: client.hget("{bound-a-function}:gate", "waiting") == b"18")
            await self.serve(20)
            for child in children:
                self.assertEqual(await child.ended, 0)
                self.assertTrue(child.output.endswith(b"fetched 10\n"), child.output + child.errors)
            self.assertEqual(client.keys("{bound-a-function}*"), [])
        for name in (b"a", b"b"):
            own = [target for target in self.slow.targets if target.startswith(b"/%b/" % name)]
            self.assertEqual(sorted(own), [b"/%b/%d" % (name, number) for number in range(10)])


class PagesTests(SynchronousTestCase):
    """Tests for the pages that show the examples."""

    def test_verbatim(self) -> None:
        """What a page shows of a file, after a line that names it, is that file."""
        shown = set()
        for page in (ROOT / "docs").glob("*.md"):
            for path, text in re.findall(
                r"^\[[\w./]+\]\(\.\./(examples/[\w./]+)\):\n\n```\w+\n(.*?)^```",
                page.read_text("utf-8"),
                re.DOTALL | re.MULTILINE,
            ):
                self.assertEqual(text, (ROOT / path).read_text("utf-8"), f"{page.name} shows an old {path}")
                shown.add(path)
        relay = {f"examples/django_relay/{name}.toml" for name in ("front", "worker")}
        self.assertEqual(shown, {"examples/embed.py", "examples/bound_a_function.py", *relay})

    def test_gate_by_hand(self) -> None:
        """The other pieces of Python on the gate's page do what the page says."""
        page = (ROOT / "docs" / "gate-alone.md").read_text("utf-8")
        pieces = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1:]
        tickets, weights, rates, by_hand = (
            compile(piece, "page", "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT) for piece in pieces
        )
        gate = LocalGate(Clock())
        working: Deferred[None] = Deferred()
        ticket = Ticket((Counter("one", 1),))
        names = {
            "Counter": Counter,
            "Rate": Rate,
            "Ticket": Ticket,
            "user": "ann",
            "gigabytes": 4,
            "gate": gate,
            "ticket": ticket,
        }
        exec(tickets, names)
        self.assertEqual(names["per_user"], Counter("reports=ann", 3))
        exec(weights, names)
        self.assertEqual(names["memory"], Counter("memory", 16, weight=4))
        self.assertEqual(names["per_user"], Counter("reports=ann", 3, max_waiting=20))
        exec(rates, names)
        self.assertEqual(names["mails"], Counter("mails", rate=Rate(600_000, 10)))
        done = Deferred.fromCoroutine(eval(by_hand, {**names, "function": lambda: working}))
        self.assertFalse(gate.idle)
        working.callback(None)
        self.successResultOf(done)
        self.assertTrue(gate.idle)
