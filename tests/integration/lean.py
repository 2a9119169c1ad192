"""
A server for the application with next to no overhead, where the proxy's own is to be measured.

    python -m tests.integration.lean

Its first line says where it listens. It has a thread for each connection, and keeps connections open.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.application import application


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        """Ask the application; cut the response where it breaks off."""
        path, _, query = self.path.partition("?")
        environ = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": self.headers.get("Content-Length", "0"),
            "wsgi.input": self.rfile,
        }
        try:
            for piece in application(environ, self.start_response):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)
            if self.chunked:
                self.wfile.write(b"0\r\n\r\n")
        except (OSError, RuntimeError):
            self.close_connection = True

    do_POST = do_GET

    def start_response(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Begin the answer."""
        self.send_response_only(int(status.split()[0]))
        for name, value in headers:
            self.send_header(name, value)
        self.chunked = not any(name == "Content-Length" for name, _ in headers)
        if self.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """All connections."""

    request_queue_size = 1024


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        print(f"listens on 127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
    sys.exit()
