"""
A service that says who may pass, for examples/auth.toml: the least that such a service has to do.

    python examples/auth_service.py         # at 127.0.0.1:7000, or at the port that PORT names

It asks browsers for a name and a password, lets nobody but admins go below /admin, and says of everybody who it is and
how much in a hurry. A real one would look up sessions or tokens; and would not keep passwords in its source.
"""

import base64
import binascii
import hmac
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Name: password, priority, whether an admin.
PEOPLE = {
    "ann": ("orange", 10, True),
    "bob": ("apple", 50, False),
}


class Service(BaseHTTPRequestHandler):
    """One connection of the proxy's."""

    protocol_version = "HTTP/1.1"  # which keeps connections open

    def do_GET(self) -> None:
        """Decide."""
        name = self.name()
        if name is None:
            self.answer(401, {"WWW-Authenticate": 'Basic realm="the application"'})
            return
        _, priority, is_admin = PEOPLE[name]
        if self.headers["X-Forwarded-Uri"].startswith("/admin") and not is_admin:
            self.answer(403, {})
        else:
            self.answer(200, {"X-User": name, "X-Priority": str(priority)})

    def name(self) -> str | None:
        """Who it is; None if that is not proven."""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        try:
            name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        known = scheme.lower() == "basic" and name in PEOPLE
        return name if known and hmac.compare_digest(PEOPLE[name][0].encode(), password.encode()) else None

    def answer(self, status: int, fields: dict[str, str]) -> None:
        """Let pass, or say why not: what is not 2xx goes to the client as it is."""
        body = b"" if status == 200 else f"{self.responses[status][0]}\n".encode()
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "7000"))), Service) as server:
        print(f"listens on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
