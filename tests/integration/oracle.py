"""
A service that says who may pass, and an application that shows what it is sent.

    python -m tests.integration.oracle [--port PORT] [--certificate FILE]

Its first line says where it listens. What is below /auth is the service, which does as the header X-Say tells it:

    pass NAME PRIORITY   200, with X-User and X-Priority
    401, 403, 302, 500   so
    slow SECONDS         200, after so long
    half                 half an answer, and then nothing more
    huge                 an answer without an end
    garbage              no HTTP

All else is the application, which answers with the head of the request. On stdout each question has a line when it
begins and one when it ends, as requests have in L{tests.integration.application}, by its header X-Name. So has each
connection, when it begins.
"""

from __future__ import annotations

import argparse
import os
import ssl
import threading
import time
from collections.abc import Iterator

from tests.integration.lean import Handler, Server

FIELDS = {
    "401": 'WWW-Authenticate: Basic realm="x"\r\n',
    "302": "Location: /login?next=%2F\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
}


class Oracle(Handler):
    """One connection."""

    def setup(self) -> None:
        """It begins."""
        super().setup()
        note("connection", "begun")

    def fields(self) -> Iterator[tuple[str, str]]:
        """The fields of a request, whose lines are kept."""
        self.lines: list[str] = []
        for name, value in super().fields():
            self.lines.append(f"{name}: {value}\n")
            yield name, value

    def answer(self, target: str, fields: dict[str, str]) -> None:
        """Be the service or the application."""
        if not target.startswith("/auth"):
            self.say(200, "", "".join([f"target: {target}\n", *self.lines]))
            return
        name = fields.get("x-name", "nobody")
        note("begin", name)
        try:
            self.decide(*fields.get("x-say", "pass nobody 50").split())
        finally:
            note("end", name)

    def decide(self, what: str, *arguments: str) -> None:
        """Answer a question."""
        if what == "pass":
            user, priority = arguments
            self.say(200, f"X-User: {user}\r\nX-Priority: {priority}\r\n", "welcome")
        elif what == "slow":
            time.sleep(float(arguments[0]))
            self.say(200, "X-User: slow\r\n", "")
        elif what == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-User: half\r\nContent-Length: 8\r\n\r\nhalf")
            self.wfile.flush()
            os.write(1, b"half is there\n")
            threading.Event().wait(60)
        elif what == "huge":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-User: huge\r\n\r\n")
            while True:
                self.wfile.write(b"x" * 65536)
        elif what == "garbage":
            self.wfile.write(b"220 mail.example ESMTP\r\n")
            raise RuntimeError("that was it")
        else:
            self.say(int(what), FIELDS.get(what, ""), f"it says {what}")

    def say(self, status: int, fields: str, body: str) -> None:
        """Send a response."""
        framing = f"Content-Length: {len(body)}"
        self.wfile.write(f"HTTP/1.1 {status} Said\r\n{fields}{framing}\r\n\r\n{body}".encode())


def note(what: str, name: str) -> None:
    """A line on stdout."""
    os.write(1, b"%.6f %b %b\n" % (time.monotonic(), what.encode(), name.encode()))


if __name__ == "__main__":
    from tests.integration import uncovered  # noqa: F401

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate")
    options = parser.parse_args()
    Server.allow_reuse_address = True
    with Server(("127.0.0.1", options.port), Oracle) as server:
        if options.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options.certificate)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        print(f"listens on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
