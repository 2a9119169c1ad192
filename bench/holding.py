"""
Connections that take up room, held in a process of their own until its stdin is closed.

    python -m bench.holding PORT SILENT IDLE HEADS BODIES

So many that say nothing; that were answered once, and are kept; that send a request's head a byte each second; and that
send a body so. It says C{ready} when all are there, and in the end as JSON how many of them the server has closed.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import time
from contextlib import suppress

REQUEST = b"GET /hello HTTP/1.1\r\nHost: crowd\r\n\r\n"
HEAD = b"GET /hello HTTP/1.1\r\nHost: crowd\r\nX-Slow: "
BODY = b"POST /hello HTTP/1.1\r\nHost: crowd\r\nContent-Length: 100000\r\n\r\n"

#: Seconds between two connections: the queue of a port is short, and who finds it full comes back after a second.
PACE = 0.001

#: In so many parts of a second the slow ones take turns.
TURNS = 20


def files() -> int:
    """Let this process open as many files as it may; how many that is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def connect(port: int, data: bytes, answered: bool) -> socket.socket:
    """A connection, on which something is sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    connection.sendall(data)
    if answered:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
    else:
        time.sleep(PACE)
    connection.setblocking(False)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether the server has neither closed a connection nor said anything more."""
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def hold(port: int, silent: int, idle: int, heads: int, bodies: int) -> dict[str, int]:
    """Hold connections until stdin is closed."""
    files()
    kinds = {
        "silent": [connect(port, b"", False) for _ in range(silent)],
        "idle": [connect(port, REQUEST, True) for _ in range(idle)],
        "heads": [connect(port, HEAD, False) for _ in range(heads)],
        "bodies": [connect(port, BODY, False) for _ in range(bodies)],
    }
    print("ready", flush=True)
    slow = kinds["heads"] + kinds["bodies"]
    turn, due = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        for connection in slow[turn::TURNS]:
            with suppress(OSError):  # it is seen in the end
                connection.send(b"x")
        turn, due = (turn + 1) % TURNS, due + 1 / TURNS
    return {kind: sum(not is_open(each) for each in connections) for kind, connections in kinds.items()}


if __name__ == "__main__":
    print(json.dumps(hold(*map(int, sys.argv[1:]))))
