"""Who is measured: how each proxy is configured and started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]

#: What a limit is keyed by here; the load sends this header.
LIMIT = '[[limit]]\nname = "user"\nkey = "header:X-User"\nmax_concurrent = {slots}\n'

REVERSE_PROXY = """
import sys
from twisted.internet import reactor
from twisted.python import log
from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site
log.startLogging(open(sys.argv[3], "w"), setStdout=False)
resource = ReverseProxyResource("127.0.0.1", int(sys.argv[2]), b"")
reactor.listenTCP(int(sys.argv[1]), Site(resource), interface="127.0.0.1")
reactor.run()
"""

HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend here
    bind 127.0.0.1:{port}
    default_backend there
backend there
    server app 127.0.0.1:{backend} {maxconn}
"""

NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    keepalive_requests 1000000;
    upstream app {{ server 127.0.0.1:{backend}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@attrs.frozen
class Contender:
    """
    A proxy to be measured.

    @ivar uses_redis: whether what Redis spends belongs to it.
    """

    name: str
    port: int
    command: list[str]
    uses_redis: bool = False


def contenders(
    directory: Path, ports: Iterator[int], backend: int, redis: str, slots: int
) -> Iterator[Contender]:
    """
    All that are installed here.

    @param directory: for their files.
    @param redis: the URL of a Redis.
    @param slots: fewer than there are connections, so that requests wait, in the one that shows waiting.
    """
    gate = f'[redis]\nurl = "{redis}"\nnamespace = "{{}}"\n'
    plenty, few = LIMIT.format(slots=100_000), LIMIT.format(slots=slots)
    for name, text, uses_redis in (
        ("thrtwisted, no limit", "", False),
        ("thrtwisted, one limit, local gate", plenty, False),
        ("thrtwisted, one limit, Redis gate", gate.format("plenty") + plenty, True),
        (f"thrtwisted, {slots} slots, local gate", few, False),
        (f"thrtwisted, {slots} slots, Redis gate", gate.format("few") + few, True),
    ):
        port = next(ports)
        file = directory / f"{port}.toml"
        file.write_text(
            f'listen = "tcp:{port}:interface=127.0.0.1"\n{text}'
            f'[backend.app]\nurl = "http://127.0.0.1:{backend}"\n'
        )
        command = [*TWISTD, f"--logfile={directory}/{port}.log", "thrproxy", "--config", str(file)]
        yield Contender(name, port, command, uses_redis)
    port = next(ports)
    arguments = [str(port), str(backend), f"{directory}/{port}.log"]
    yield Contender("twisted.web.proxy", port, [sys.executable, "-c", REVERSE_PROXY, *arguments])
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if haproxy:
        for name, maxconn in (("HAProxy", ""), (f"HAProxy, {slots} slots", f"maxconn {slots}")):
            port = next(ports)
            file = directory / f"haproxy-{port}.cfg"
            file.write_text(HAPROXY.format(port=port, backend=backend, maxconn=maxconn))
            yield Contender(name, port, [haproxy, "-db", "-q", "-f", str(file)])
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx:
        port = next(ports)
        file = directory / "nginx.conf"
        file.write_text(NGINX.format(port=port, backend=backend, directory=directory))
        yield Contender("nginx", port, [nginx, "-e", f"{directory}/nginx.log", "-c", str(file)])
