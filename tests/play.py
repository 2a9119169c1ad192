"""A proxy in memory, to which happens what a page of recipes shows, message by message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.forward.support import Wire
from tests.recipes import After, Logged, Message, Step
from thrtwisted.config import Config
from thrtwisted.service import Proxy


class Heard:
    """A message that has come: its first line, its headers and its body."""

    def __init__(self, line: str, headers: Headers, body: bytes) -> None:
        self.line, self.headers, self.body = line, headers, body

    @classmethod
    def of(cls, data: bytes) -> Heard:
        """What was sent on a connection."""
        head, _, body = data.partition(b"\r\n\r\n")
        line, *fields = head.decode("utf-8", "surrogateescape").split("\r\n")
        headers = Headers()
        for field in fields:
            headers.addRawHeader(*field.split(": ", 1))
        parts = line.split(" ")
        return cls(parts[1] if line.startswith("HTTP/") else " ".join(parts[:2]), headers, body)

    def differences(self, shown: Message) -> Iterator[str]:
        """Where the message is not as the page shows it."""
        whose = f"{shown.who} {shown.way}".strip()
        if self.line != shown.line:
            yield f"{whose} {self.line}, not {shown.line}"
        for name, values in shown.expected().items():
            found = self.headers.getRawHeaders(name, [])
            if found != values:
                yield f"{whose} {name}: {found}, not {values}"
        if shown.body is not None and self.body.decode().rstrip("\n") != shown.body.rstrip("\n"):
            yield f"{whose} body {self.body!r}, not {shown.body!r}"


class Asked:
    """
    What a backend or a service was asked, and has not answered.

    @ivar who: its name.
    """

    def __init__(self, who: str, heard: Heard, answer: Callable[[int, Headers, bytes], None]) -> None:
        self.who, self.heard, self.answer = who, heard, answer


class ClientWire(Wire):
    """
    A client's end of its connection.

    @ivar shown: the page has shown what it got.
    """

    def __init__(self, clock: Any, protocol: Any, address: str) -> None:
        self.address = address
        self.shown = False
        super().__init__(clock, protocol)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.address, 50000)


class Service(Resource):
    """A service on a real port, which answers what the page says."""

    isLeaf = True

    def __init__(self, name: str, asked: Callable[[Asked], object]) -> None:
        super().__init__()
        self._name, self._asked = name, asked

    def render(self, request: Any) -> int:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(status: int, headers: Headers, body: bytes) -> None:
            if gone:
                return
            request.setResponseCode(status)
            request.responseHeaders = headers
            headers.setRawHeaders("Connection", ["close"])
            headers.setRawHeaders("Content-Length", [str(len(body))])
            request.write(body)
            request.finish()

        line = f"{request.method.decode()} {request.uri.decode()}"
        heard = Heard(line, request.requestHeaders, request.content.read())
        self._asked(Asked(self._name, heard, answer))
        return NOT_DONE_YET


class Play:
    """A proxy with the configuration of a recipe, to which happens what the page shows."""

    def __init__(self, config: Config, services: list[Asked], log: list[str], patience: float) -> None:
        """
        @param services: where services on real ports put what they are asked.
        @param log: where the log puts its lines.
        @param patience: seconds of real time in which threads and services on real ports do what is shown of them.
        """
        self._services, self._log, self._patience = services, log, patience
        self._clock = MemoryReactorClock()
        self._clock.advance(1000)
        self._names = {
            each.url.split("/")[2]: name for name, each in (*config.backend.items(), *config.auth.items())
        }
        self._proxy = Proxy(self._clock, config)
        self._proxy.startService()
        self._site = self._proxy.site()
        self._site.doStart()
        self._clients: list[ClientWire] = []
        self._accepted: list[Wire] = []
        self._arrived: list[Asked] = []  # and not shown yet
        self._open: list[Asked] = []  # shown, and not answered yet

    async def play(self, steps: list[Step]) -> None:
        """
        Let all of it happen.

        @raise AssertionError: it happens otherwise.
        """
        for place, step in enumerate(steps):
            if isinstance(step, After):
                await self._quiet()
                self._advance(step.seconds)
            elif isinstance(step, Logged):
                await self._until(lambda text=step.text: text in self._log, f"the log says {self._log}")
            elif not step.who and step.way == ">":
                await self._quiet()
                self._send(step)
            elif step.way == ">":
                await self._asked(step)
            elif step.who:
                self._answer(step)
            else:
                await self._got(step, steps[place:])
        await self._quiet()
        while not all(client.shown for client in self._clients):
            if self._open:
                self._respond(self._open.pop(0))
            else:
                await self._until(lambda: self._arrived or self._unshown(), "a client waits for ever")
            await self._quiet()

    def end(self) -> None:
        """All is closed: nothing is left."""
        for client in self._clients:
            client.lose()
        stopping = self._proxy.stopService()
        for wire in self._accepted:
            wire.lose()
        self._site.doStop()
        for _ in range(10):
            self._clock.advance(1)
        assert stopping.called
        left = [call for call in self._clock.getDelayedCalls() if call.active()]
        assert not left, left

    def _send(self, step: Message) -> None:
        """A client sends a request, and wants to hear of nothing after the response."""
        client = ClientWire(self._clock, self._site.buildProtocol(None), step.address)
        self._clients.append(client)
        headers, body = step.headers(), (step.body or "").removesuffix("\n").encode()
        if not headers.hasHeader("Host"):
            headers.addRawHeader("Host", "shop.example")
        headers.addRawHeader("Connection", "close")
        if step.body is not None:
            headers.addRawHeader("Content-Length", str(len(body)))
        client.receive(_message(f"{step.line} HTTP/1.1", headers, body))

    def _advance(self, seconds: float) -> None:
        """Let time go by: timers go off one after the other, each at its time."""
        end = self._clock.seconds() + seconds
        while self._clock.seconds() < end:
            times = (call.getTime() for call in self._clock.getDelayedCalls() if call.active())
            self._clock.advance(min(end, *times, end) - self._clock.seconds())

    def _look(self) -> None:
        """Let the backends accept what is connected to them, and all go on that can."""
        self._clock.advance(0)
        for host, port, factory, *_ in self._clock.tcpClients[len(self._accepted) :]:
            wire = Wire(self._clock, factory.buildProtocol(None))
            self._accepted.append(wire)
            self._clock.advance(0)

            def answer(status: int, headers: Headers, body: bytes, wire: Wire = wire) -> None:
                headers.setRawHeaders("Connection", ["close"])
                headers.setRawHeaders("Content-Length", [str(len(body))])
                wire.receive(_message(f"HTTP/1.1 {status} OK", headers, body))
                wire.lose()

            name = self._names[f"{host}:{port}"]
            self._arrived.append(Asked(name, Heard.of(wire.value()), answer))
        self._arrived += self._services
        self._services.clear()

    async def _until(self, condition: Callable[[], Any], problem: str) -> None:
        """Threads and real services take their time."""
        deadline = time.monotonic() + self._patience
        self._look()
        while not condition():
            assert time.monotonic() < deadline, f"this does not happen; {problem}"
            await deferLater(reactor, 0.002)
            self._look()

    async def _quiet(self) -> None:
        """See that nothing has happened that the page should show: only a plain answer need not be shown."""
        self._look()
        for asked in self._arrived:
            raise AssertionError(f"{asked.who} > {asked.heard.line} happens, and is not shown")
        assert not self._surprises(), f"{self._surprises()} happens, and is not shown"
        for client in self._unshown():
            client.shown = True

    async def _asked(self, step: Message) -> None:
        """A backend or service is asked."""
        await self._until(
            lambda: any(asked.who == step.who for asked in self._arrived) or self._surprises(),
            f"{step.who} is not asked, but {[asked.who for asked in self._arrived]}",
        )
        found = [asked for asked in self._arrived if asked.who == step.who]
        assert found, f"{step.who} is not asked, for a client gets {self._surprises()}"
        self._arrived.remove(found[0])
        self._open.append(found[0])
        _check(found[0].heard, step)

    def _answer(self, step: Message) -> None:
        """A backend or service answers, of what it was asked first."""
        found = [asked for asked in self._open if asked.who == step.who]
        assert found, f"{step.who} answers, and was not asked"
        self._open.remove(found[0])
        body = (step.body or "").removesuffix("\n").encode()
        found[0].answer(int(step.line), step.headers(), body)

    def _respond(self, asked: Asked) -> None:
        """A backend or service answers what is not shown."""
        asked.answer(200, Headers({"Content-Type": ["text/plain"]}), b"ok")

    async def _got(self, step: Message, rest: list[Step]) -> None:
        """A client gets the response."""
        self._look()
        answers = [each for each in rest if isinstance(each, Message) and each.who and each.way == "<"]
        if not self._unshown() and len(self._open) > len(answers):
            self._respond(self._open.pop(0))
        await self._until(
            self._unshown, f"no client is answered; asked: {[each.who for each in self._arrived]}"
        )
        client = self._unshown()[0]
        client.shown = True
        _check(Heard.of(client.value()), step)

    def _unshown(self) -> list[ClientWire]:
        """Clients that have got their response, which is not shown yet."""
        return [each for each in self._clients if not each.shown and (each.disconnecting or each.lost)]

    def _surprises(self) -> list[str]:
        """The responses, not shown yet, that have to be shown."""
        heard = [Heard.of(client.value()) for client in self._unshown()]
        return [f"< {each.line} {each.body.decode()}" for each in heard if each.line != "200"]


def _message(line: str, headers: Headers, body: bytes) -> bytes:
    fields = [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
    return b"\r\n".join((line.encode(), *fields, b"", body))


def _check(heard: Heard, shown: Message) -> None:
    differences = list(heard.differences(shown))
    assert not differences, "; ".join(differences)
