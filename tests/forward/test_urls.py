"""In memory: backends with several URLs, and questions for their health."""

from __future__ import annotations

import errno
import os

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from thrtwisted import errors
from thrtwisted.tls import UntrustedCertificate, WrongName

from .support import OK, MemoryRig

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]


class UrlsCase(SynchronousTestCase):
    """A rig with several URLs, and what is logged."""

    rig_class: type[MemoryRig] = MemoryRig

    def setUp(self):
        self.said: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event):
        if event["log_namespace"].startswith("thrtwisted.") and event["log_level"].name != "debug":
            self.said.append(event["log_format"].format(**event))

    def rig(self, **config) -> MemoryRig:
        config.setdefault("url", URLS[:2])
        config.setdefault("connect_timeout", 1000.0)  # there are tests that never accept
        return self.rig_class(self, **config)

    def ports(self, rig: MemoryRig) -> list[int]:
        """Where connections were asked for, in turn."""
        return [port for _, port, *_ in rig.clock.tcpClients]


class PassiveTests(UrlsCase):
    """URLs that cannot be connected to."""

    def test_fewest(self):
        """The next request goes where the fewest are."""
        rig = self.rig(url=URLS)
        for _ in range(3):
            rig.request(POST)
        rig.accept(1).receive(OK)
        rig.request(POST)
        rig.request(POST)
        self.assertEqual(self.ports(rig), [1, 2, 3, 2, 1])

    def test_another_at_once(self):
        """Whatever the method, and however the first fails: the next URL gets the request, and its body, once."""
        for failure in (
            error.ConnectionRefusedError(),
            error.TimeoutError(),
            error.NoRouteError(),
            error.DNSLookupError(),
            error.ConnectError(2, "No such file or directory"),
        ):
            for request in (GET, POST):
                rig = self.rig()
                client = rig.request(request)
                rig.refuse(failure)
                self.assertEqual(client.value(), b"")
                self.assertFalse(rig.finished)
                backend = rig.accept()
                sent = backend.value()
                self.assertEqual(sent.partition(b" ")[0], request.partition(b" ")[0])
                self.assertEqual(sent.partition(b"\r\n\r\n")[2], request.partition(b"\r\n\r\n")[2])
                self.assertEqual(sent.count(b"HTTP/1.1\r\n"), 1)
                backend.receive(OK)
                self.assertTrue(client.value().endswith(b"ok"))
                self.assertTrue(rig.finished)
                self.assertEqual(self.ports(rig), [1, 2])
                self.assertEqual(rig.front.errors, [])

    def test_ours(self):
        """That the proxy itself has no more sockets says nothing of a URL: none is out, and the log says what to do."""
        for number in (errno.EMFILE, errno.EADDRNOTAVAIL):
            self.said.clear()
            rig = self.rig()
            for _ in range(2):
                client = rig.request()
                rig.refuse(error.ConnectBindError(number, os.strerror(number)))
                self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
            self.assertEqual(self.ports(rig), [1, 2])
            self.assertEqual(rig.forwarder._routes.out, [])
            [line] = self.said
            self.assertIn(os.strerror(number), line)
            self.assertIn("mend: let it have more file descriptors", line)
            rig.request()
            rig.accept()
            rig.request()
            rig.refuse(error.ConnectBindError(number, os.strerror(number)))
            self.assertEqual(len(self.said), 2)

    def test_each_once(self):
        """When none is left the client is told why the last one failed; no URL was tried twice."""
        rig = self.rig(url=URLS, connect_timeout=7.0)
        client = rig.request(POST)
        rig.refuse(error.ConnectionRefusedError())
        rig.refuse(error.NoRouteError())
        self.assertEqual(client.value(), b"")
        rig.refuse(error.TimeoutError())
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))
        self.assertEqual([type(each) for each in rig.front.errors], [errors.BackendConnectTimeout])
        self.assertTrue(rig.finished)
        self.assertEqual(self.ports(rig), [1, 2, 3])
        self.assertEqual([each[3] for each in rig.clock.tcpClients], [7.0] * 3)

    def test_out(self):
        """One that refuses has no requests for C{down_time}; then one at a time tries it, until it answers."""
        rig = self.rig(down_time=10.0)
        rig.request()
        rig.refuse(error.ConnectionRefusedError())
        rig.accept().receive(OK)
        for _ in range(3):
            rig.request(POST)
        self.assertEqual(self.ports(rig), [1, 2, 2, 2, 2])
        rig.clock.advance(10)
        for _ in range(3):
            rig.request(POST)
        self.assertEqual(self.ports(rig)[5:], [1, 2, 2])
        rig.accept(5).receive(OK)
        rig.request(POST)
        self.assertEqual(self.ports(rig)[8:], [1])
        self.assertEqual(
            self.said,
            [
                "backend.app: http://127.0.0.1:1 cannot be connected to: the backend refuses connections; "
                "it gets no requests for 10 s, while another can",
                "backend.app: http://127.0.0.1:1 can be connected to again, and gets requests",
            ],
        )

    def test_tried_anew(self):
        """One that is out is tried over a new connection: one that is idle from before proves nothing."""
        rig = self.rig(down_time=10.0, keep_alive=100.0)
        rig.request()
        rig.accept().receive(OK)
        rig.request(POST)
        rig.request(POST)
        rig.refuse(error.ConnectionRefusedError())
        self.assertEqual(self.ports(rig), [1, 2, 1, 2])
        rig.clock.advance(10)
        rig.request()
        self.assertEqual(self.ports(rig)[4:], [1])
        rig.accept()
        self.assertEqual(rig.forwarder._routes.out, [])

    def test_out_again(self):
        """One that still refuses when it is tried is out for as long again; the client that tried it has its answer."""
        rig = self.rig(down_time=10.0)
        for _ in range(2):
            rig.request(POST)
            rig.refuse(error.ConnectionRefusedError())
            rig.clock.advance(10)
        self.assertEqual(self.ports(rig), [1, 2, 1, 2])
        self.assertEqual(len(self.said), 1)
        self.assertEqual(rig.front.errors, [])

    def test_trying_client_leaves(self):
        """A client that leaves while it tries lets the next one try."""
        rig = self.rig(down_time=10.0)
        rig.request(POST)
        rig.refuse(error.ConnectionRefusedError())
        rig.clock.advance(10)
        rig.request(POST).lose()
        self.assertEqual(self.ports(rig), [1, 2, 1])
        rig.request(POST)
        self.assertEqual(self.ports(rig), [1, 2, 1, 1])

    def test_all_out(self):
        """If all are out all are tried nevertheless."""
        rig = self.rig(down_time=1000.0)
        for _ in range(3):
            rig.request(POST)
            rig.refuse(error.ConnectionRefusedError())
            rig.refuse(error.ConnectionRefusedError())
        self.assertEqual(self.ports(rig), [1, 2, 1, 2, 1, 2])
        self.assertEqual(len(self.said), 2)
        rig.request(POST)
        rig.accept().receive(OK)
        self.assertEqual(len(self.said), 3)

    def test_one_alone(self):
        """One URL alone is never out; that it cannot be connected to is told once all the same."""
        rig = self.rig(url=URLS[0])
        for _ in range(2):
            client = rig.request()
            rig.refuse(error.ConnectionRefusedError())
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
        self.assertEqual(
            self.said,
            [
                "backend.app: http://127.0.0.1:1 cannot be connected to: the backend refuses connections; "
                "requests are answered 502 or 504"
            ],
        )

    def test_certificates(self):
        """Whose certificate is not trusted gets no request; the line says how to mend it."""
        for problem, kind, words in [
            (
                UntrustedCertificate(18),
                "tls_certificate_error",
                "its certificate is signed by nobody who is trusted "
                "(mend: name the signer's certificate in backend.app.ca)",
            ),
            (
                WrongName("other"),
                "tls_certificate_error",
                "its certificate is not for other "
                "(mend: write a host in backend.app.url that it is for, or renew the certificate)",
            ),
        ]:
            rig = self.rig()
            client = rig.request(POST)
            rig.refuse(problem)
            rig.refuse(problem)
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
            self.assertEqual([each.proxy_status for each in rig.front.errors], [kind])
            self.assertIn(words, self.said[-1])

    def test_client_leaves(self):
        """A client that leaves while the second URL is connected to: nothing is sent, the slot is free."""
        rig = self.rig(url=URLS)
        client = rig.request(POST)
        rig.refuse(error.ConnectionRefusedError())
        self.assertFalse(rig.finished)
        client.lose()
        self.assertTrue(rig.finished)
        self.assertEqual(self.ports(rig), [1, 2])

    def test_proxy_stops(self):
        """So when the proxy stops: no further URL is tried."""
        rig = self.rig(url=URLS)
        client = rig.request(POST)
        rig.refuse(error.ConnectionRefusedError())
        self.successResultOf(rig.forwarder.close())
        self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
        self.assertTrue(rig.finished)
        self.assertEqual(self.ports(rig), [1, 2])

    def test_lost_after_it_was_sent(self):
        """A request that may have been executed is not sent to another URL, nor one that may change something."""
        for request, end in [(GET, error.ConnectionDone()), (POST, error.ConnectionLost())]:
            rig = self.rig()
            client = rig.request(request)
            rig.accept().lose(end)
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
            self.assertEqual(self.ports(rig), [1])

    def test_lost_later(self):
        """What is lost long after it was sent may be lost because the network is gone: it may have been executed."""
        for wait, expected in [(1.9, [1, 2]), (2.1, [1])]:
            rig = self.rig()
            rig.request()
            backend = rig.accept()
            rig.clock.advance(wait)
            backend.lose(error.ConnectionLost())
            self.assertEqual(self.ports(rig), expected)

    def test_not_read(self):
        """One that was not read is, once; another URL comes first, as the first one may be stopping."""
        for urls, expected in [(URLS, [1, 2]), (URLS[:1], [1, 1])]:
            rig = self.rig(url=urls)
            client = rig.request()
            for _ in range(2):
                self.assertEqual(client.value(), b"")
                rig.accept().lose(error.ConnectionLost())
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
            self.assertEqual(self.ports(rig), expected)

    def test_retries_elsewhere(self):
        """With C{retries} another URL is asked, if there is one."""
        for urls, expected in [(URLS, [1, 2, 3]), (URLS[:1], [1, 1, 1])]:
            rig = self.rig(url=urls, retries=2)
            client = rig.request()
            for _ in range(3):
                self.assertEqual(client.value(), b"")
                rig.accept().lose(error.ConnectionDone())
            self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
            self.assertTrue(rig.finished)
            self.assertEqual(self.ports(rig), expected)

    def test_no_retry(self):
        """C{retries} are for requests that were closed on, not for those that take too long, nor for nobody."""
        rig = self.rig(retries=2, response_timeout=5.0, abandon_timeout=5.0)
        client = rig.request()
        backend = rig.accept()
        rig.clock.advance(5)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))
        self.assertFalse(rig.finished)
        backend.lose()
        self.assertTrue(rig.finished)
        self.assertEqual(self.ports(rig), [1])

    def test_response_timeout_of_each(self):
        """Each attempt has its C{response_timeout}, from when its request was sent."""
        rig = self.rig(retries=1, response_timeout=5.0)
        client = rig.request()
        backend = rig.accept()
        rig.clock.advance(4)
        backend.lose()
        rig.clock.advance(4)
        rig.accept()
        rig.clock.advance(4)
        self.assertEqual(client.value(), b"")
        rig.clock.advance(1)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))


@implementer(IHostnameResolver)
class Resolver:
    """Answers nothing until it is told to."""

    def resolveHostName(self, receiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        self.receiver = receiver
        receiver.resolutionBegan(None)
        return self

    def answer(self, *addresses):
        for address in addresses:
            self.receiver.addressResolved(address)
        self.receiver.resolutionComplete()


class NameTests(UrlsCase):
    """URLs with the name of a host."""

    def named(self, **config):
        self.resolver = Resolver()
        rig = self.rig(url="http://app.example:80", connect_timeout=5.0, **config)
        rig.clock.installNameResolver(self.resolver)
        return rig, rig.request()

    def test_silent_resolver(self):
        """The time to resolve a name is a part of C{connect_timeout}; what comes later is dropped."""
        rig, client = self.named()
        rig.clock.advance(4.9)
        self.assertEqual(client.value(), b"")
        rig.clock.advance(0.1)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))
        self.assertTrue(rig.finished)
        self.resolver.answer(IPv4Address("TCP", "192.0.2.1", 80))
        self.assertEqual(rig.clock.tcpClients, [])

    def test_several_addresses(self):
        """All addresses of a name share it, too."""
        rig, client = self.named()
        rig.clock.advance(3.0)
        self.resolver.answer(*(IPv4Address("TCP", f"192.0.2.{number}", 80) for number in (1, 2, 3)))
        rig.clock.pump([0.1] * 10)
        self.assertEqual([host for host, *_ in rig.clock.tcpClients], ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        self.assertEqual(client.value(), b"")
        rig.clock.advance(1.0)
        self.assertTrue(client.value().startswith(b"HTTP/1.1 504 "))
        self.assertTrue(rig.finished)
        self.assertTrue(all(each.stoppedConnecting for each in rig.clock.connectors))

    def test_first_address_refuses(self):
        """The next address is tried soon: C{localhost} has two, and a server may listen on the second alone."""
        rig, client = self.named()
        self.resolver.answer(IPv6Address("TCP", "::1", 80), IPv4Address("TCP", "127.0.0.1", 80))
        rig.refuse(error.ConnectionRefusedError())
        rig.clock.advance(0.02)
        rig.accept().receive(OK)
        self.assertTrue(client.value().endswith(b"ok"))

    def test_unknown(self):
        """A name that nobody knows."""
        _, client = self.named()
        self.resolver.answer()
        self.assertTrue(client.value().startswith(b"HTTP/1.1 502 "))
        self.assertIn("name cannot be resolved", self.said[0])


class HealthTests(UrlsCase):
    """C{health}."""

    def rig(self, **config) -> MemoryRig:
        rig = super().rig(**{"health": "/health", "health_interval": 5.0, **config})
        rig.forwarder.start()
        return rig

    def answer(self, rig: MemoryRig, *answers: bytes | Exception | None) -> None:
        """Answer the questions of one round, one for each URL."""
        rig.clock.advance(0)
        rig.clock.tcpClients.sort(key=lambda client: client[1])
        self.assertEqual(self.ports(rig), [1, 2][: len(answers)])
        self.questions = []
        for number, answer in enumerate(answers):
            if isinstance(answer, Exception):
                rig.refuse(answer, number)
            elif answer is not None:
                self.questions.append(rig.accept(number))
                self.questions[-1].receive(b"HTTP/1.1 %b x\r\nContent-Length: 0\r\n\r\n" % answer)
        rig.clock.tcpClients.clear()

    def test_question(self):
        """It names its URL and itself, and its connection is closed as soon as the status is there."""
        rig = self.rig(health="/health?deep")
        self.answer(rig, b"200", b"399")
        self.assertEqual(
            self.questions[1].value(),
            b"GET /health?deep HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1:2\r\n"
            b"User-Agent: thrtwisted-health\r\n\r\n",
        )
        self.assertTrue(all(question.aborted for question in self.questions))
        rig.clock.advance(4.9)
        self.assertEqual(self.ports(rig), [])
        rig.clock.advance(0.1)
        self.assertEqual(self.ports(rig), [1, 2])
        self.answer(rig, b"204", b"302")
        self.assertEqual(self.said, [])

    def test_ill_and_well(self):
        """Two bad answers in a row take a URL out, one good one brings it back; each is told once."""
        rig = self.rig()
        for bad in (b"500", b"404"):
            rig.request(POST)
            rig.request(POST)
            self.assertEqual(sorted(self.ports(rig)[-2:]), [1, 2])
            rig.clock.tcpClients = rig.clock.tcpClients[:2]
            self.answer(rig, bad, b"200")
            rig.clock.advance(5)
        questions = list(rig.clock.tcpClients)
        for _ in range(3):
            rig.request(POST)
        self.assertEqual(self.ports(rig)[2:], [2, 2, 2])
        rig.clock.tcpClients = questions
        self.answer(rig, b"500", b"200")
        rig.clock.advance(5)
        self.answer(rig, b"200", b"200")
        rig.request(POST)
        self.assertEqual(self.ports(rig), [1])
        self.assertEqual(
            self.said,
            [
                "backend.app: http://127.0.0.1:1 is ill: asked for /health, it answers 404; "
                "it gets no requests, while another can, until it is well again",
                "backend.app: http://127.0.0.1:1 is well again, and gets requests",
            ],
        )

    def test_bad_answers(self):
        """Whatever is no good answer is a bad one; one alone is none."""
        for bad, words in [
            (b"199", "it does not answer in 5 s"),
            (b"400", "it answers 400"),
            (b"abc", "the backend's response is malformed: it has no status line of HTTP/1.1 or HTTP/1.0"),
            (error.ConnectionRefusedError(), "the backend refuses connections"),
            (None, "it does not answer in 5 s"),
        ]:
            self.said.clear()
            rig = self.rig()
            for answer in (bad, b"200", bad, bad, bad):
                self.answer(rig, answer, b"200")
                rig.clock.advance(5)
            self.assertEqual(
                self.said,
                [
                    f"backend.app: http://127.0.0.1:1 is ill: asked for /health, {words}; "
                    "it gets no requests, while another can, until it is well again"
                ],
            )

    def test_back_by_a_question(self):
        """A URL that could not be connected to gets requests again when it answers a question, before C{down_time}."""
        rig = self.rig(down_time=1000.0)
        self.answer(rig, b"200", b"200")
        rig.request(POST)
        rig.refuse(error.ConnectionRefusedError())
        rig.clock.tcpClients.clear()
        rig.clock.advance(5)
        self.answer(rig, b"200", b"200")
        rig.request(POST)
        self.assertEqual(self.ports(rig), [1])
        self.assertEqual(len(self.said), 2)

    def test_one_alone(self):
        """One URL alone gets requests whatever it answers; that is told."""
        rig = self.rig(url=URLS[0])
        for _ in range(3):
            self.answer(rig, b"500")
            rig.clock.advance(5)
        rig.clock.tcpClients.clear()
        rig.request(POST)
        self.assertEqual(self.ports(rig), [1])
        self.assertEqual(
            self.said,
            [
                "backend.app: http://127.0.0.1:1 is ill: asked for /health, it answers 500; "
                "it is the only one, and gets requests nevertheless"
            ],
        )

    def test_stop(self):
        """Stopped while it connects, waits for an answer, or for the next question, it leaves nothing."""
        for phase in range(3):
            rig = self.rig(url=URLS[0])
            backend = rig.accept() if phase else None
            if phase == 2:
                backend.receive(OK)
            closed = rig.forwarder.close()
            rig.clock.advance(0)
            self.successResultOf(closed)
            self.assertEqual(rig.clock.getDelayedCalls(), [])
            self.assertTrue(backend is None or backend.lost)
            rig.forwarder.start()
            self.assertEqual(rig.clock.getDelayedCalls(), [])

    def test_none(self):
        """Without C{health} nobody is asked."""
        rig = self.rig(health=None)
        self.assertEqual(self.ports(rig), [])
