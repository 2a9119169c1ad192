"""Tests for L{thrtwisted.demo}."""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from tests.integration import twistd
from tests.integration.harness import unused_port
from tests.process import Child, end, python
from thrtwisted import demo
from thrtwisted.config import Backend
from thrtwisted.listen import Listener, endpoint


class SampleApplicationTests(SynchronousTestCase):
    """Tests for L{demo.sample_application}."""

    def test_answers(self) -> None:
        """The application is a plain WSGI function, which does not work any more when it is to stop."""
        stopping = threading.Event()
        stopping.set()
        started: list[Any] = []
        application = demo.sample_application(stopping)
        body = b"".join(
            application({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, lambda *said: started.append(said))
        )
        self.assertEqual(started[0][0], "200 OK")
        self.assertIn(b"GET /x", body)


class UrlOfTests(SynchronousTestCase):
    """Tests for L{demo.url_of}."""

    def test_addresses(self) -> None:
        """A port that listens everywhere is shown as this host's; a socket as itself."""

        class Port:
            def __init__(self, host: Any) -> None:
                self.getHost = lambda: host

        for address, url in (
            (IPv4Address("TCP", "0.0.0.0", 8), "http://127.0.0.1:8"),
            (IPv4Address("TCP", "10.0.0.1", 8), "http://10.0.0.1:8"),
            (IPv6Address("TCP", "::", 8), "http://[::1]:8"),
        ):
            self.assertEqual(demo.url_of(Port(address)), url)
        self.assertIn("/run/door", demo.url_of(Port(UNIXAddress(b"/run/door"))))


class StopTests(TestCase):
    """Tests for the end of L{demo.Demonstration}."""

    async def test_stops_at_work(self) -> None:
        """The application stops while it works on a request, which is answered."""
        at_work: Deferred[None] = Deferred()

        def make_application(stopping: threading.Event) -> demo.WSGIApplication:
            def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
                reactor.callFromThread(at_work.callback, None)
                stopping.wait()
                start_response("200 OK", [])
                return [b"after all"]

            return application

        url = f"http://127.0.0.1:{unused_port()}"
        config = msgspec.structs.replace(demo.CONFIG, backend={"app": Backend(url=url)})
        said: list[str] = []
        listener = Listener(endpoint(reactor, "tcp:0"), Factory(), "the proxy", self.fail)
        listener.startService()
        self.addCleanup(listener.stopService)
        demonstration = demo.Demonstration(
            reactor, config, [listener], self.fail, said.append, make_application
        )
        demonstration.startService()
        requesting = Agent(reactor).request(b"GET", url.encode())
        await at_work
        await demonstration.stopService()
        self.assertEqual(len(said), 1)
        self.assertRegex(said[0], r"curl -i http://127.0.0.1:\d+/\n")
        self.assertEqual(await readBody(await requesting), b"after all")


class DemonstrationTests(TestCase):
    """The demonstration, in a process of its own."""

    timeout = 60

    def demonstration(self, port: int) -> tuple[Child, Any]:
        """Run it, its application at a port."""
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        child, process = python(
            *(twistd.__file__, "-n", "thrproxy", "--demo", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", f"http://127.0.0.1:{port}"),
            directory=self.directory,
        )
        self.addCleanup(end, child, process)
        return child, process

    async def test_runs(self) -> None:
        """It says what to try; that works; Ctrl-C stops all of it, though requests wait and work."""
        child, process = self.demonstration(unused_port())
        await child.said(b"Ctrl-C stops all of it.")
        lines = child.output.decode().splitlines()
        [command] = [line.strip() for line in lines if line.strip().startswith("curl -i ")]
        self.assertEqual(sum(line.strip().startswith("ab -n 10 -c 10 ") for line in lines), 2)
        url = command.split()[-1].encode()
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        agent = Agent(reactor, pool=pool)
        response = await agent.request(b"GET", url)
        self.assertIn(b"took 1 s of work", await readBody(response))
        # Four for two slots: two of them wait.
        limited = [agent.request(b"GET", url, Headers({b"Foo": [b"bar"]})) for _ in range(4)]
        answers = gatherResults(limited, consumeErrors=True)
        await limited[0]
        process.signalProcess("INT")
        self.assertEqual(await child.ended, -signal.SIGINT)
        self.assertNotIn(b"Traceback", child.output + child.errors)
        self.assertEqual(os.listdir(self.directory), [])
        answers.addErrback(lambda _: None)
        for answer in limited:
            answer.cancel()
        await answers

    async def test_port_taken(self) -> None:
        """A port that is taken is said in one line, with a way out."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        self.addCleanup(port.stopListening)
        child, _ = self.demonstration(port.getHost().port)
        self.assertEqual(await child.ended, 1)
        problems = re.findall(r"cannot listen on .*", child.output.decode())
        self.assertEqual(len(problems), 1)
        self.assertIn("--backend", problems[0])
        self.assertNotIn(b"Traceback", child.output + child.errors)
