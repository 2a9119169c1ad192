"""
One real Valkey for all tests of a trial run, started when the first test asks for it.

Each test takes a L{namespace} of its own, so that tests do not meet.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from functools import cache
from itertools import count
from typing import Any

from thrtwisted.redis.embedded import READY, SOCKET, installed_server, private_directory, server_command
from thrtwisted.redis.url import RedisAddress, parse

_numbers = count(1)


@cache
def _server() -> str:
    """Start the server, which dies with this process; the path of its unix socket."""
    directory = private_directory()
    process = subprocess.Popen(
        server_command(installed_server(), directory),
        stdin=subprocess.PIPE,  # kept open: a supervising launcher kills the server when it closes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def stop() -> None:
        process.kill()
        process.communicate()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if READY.encode() in line:
            break
    else:
        raise RuntimeError(b"".join(said).decode())
    path = os.path.join(directory, SOCKET)
    with _connect(path) as connection:
        connection.config_set("loglevel", "warning")  # nobody reads its output from here on
    return path


def _connect(path: str) -> Any:
    import valkey

    return valkey.Valkey(unix_socket_path=path)


def url() -> str:
    """The server's URL, for a configuration."""
    return f"unix://{_server()}"


def address() -> RedisAddress:
    """Where the server is."""
    return parse(url())


def namespace() -> str:
    """A namespace that no other test has."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def client() -> Any:
    """A new blocking client (a context manager) of the package C{valkey}."""
    return _connect(_server())
