"""
A server for the application with next to no overhead, where the proxy's own is to be measured.

    python -m tests.integration.lean

Its first line says where it listens. It has a thread for each connection, keeps connections open, and believes whatever
it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

from tests.integration.application import application


class Handler(StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True
    wbufsize = -1

    def handle(self) -> None:
        """Answer requests, until the client closes or wants it, or the application breaks off."""
        fields: dict[str, str] = {}
        with suppress(OSError, RuntimeError):
            while fields.get("connection") != "close" and (request := self.rfile.readline()):
                fields = dict(self.fields())
                self.answer(request.split()[1].decode(), fields)
                self.wfile.flush()

    def fields(self) -> Iterator[tuple[str, str]]:
        """The fields of a request."""
        while line := self.rfile.readline().decode("latin-1").rstrip():
            name, _, value = line.partition(": ")
            yield name.lower(), value

    def answer(self, target: str, fields: dict[str, str]) -> None:
        """Ask the application."""
        path, _, query = target.partition("?")
        environ = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": fields.get("content-length", "0"),
            "wsgi.input": self.rfile,
        }
        for piece in application(environ, self.start_response):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def start_response(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Begin the answer."""
        self.chunked = not any(name == "Content-Length" for name, _ in headers)
        framing = [("Transfer-Encoding", "chunked")] if self.chunked else []
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers + framing), "", ""]
        self.wfile.write("\r\n".join(lines).encode())


class Server(ThreadingTCPServer):
    """All connections."""

    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    from tests.integration import uncovered  # noqa: F401

    with Server(("127.0.0.1", 0), Handler) as server:
        print(f"listens on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
