"""
Clients that ask again as soon as they are answered, in a process of their own, until its standard input is closed.

    python -m tests.integration.loop CLIENTS TARGET PORT...

The number of a request takes the place of C{{}} in the target; the ports take turns. At last, when all have their
answers, a line says how many there were of each status, as JSON; C{none} is a connection that ended without one.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from collections import Counter
from itertools import count

import attrs

from tests.integration.crowd import status


@attrs.define
class Client:
    """One client, and what it has read of its answer."""

    port: int
    connection: socket.socket
    received: bytearray = attrs.field(factory=bytearray)


def loop(clients: int, target: str, ports: list[int]) -> Counter[str]:
    """Ask, until nobody wants to know more."""
    statuses: Counter[str] = Counter()
    numbers, more = count(), True
    with selectors.DefaultSelector() as waiting:

        def ask(client: Client) -> None:
            request = f"GET {target.format(next(numbers))} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            client.connection.sendall(request.encode())

        def join(port: int) -> None:
            client = Client(port, socket.create_connection(("127.0.0.1", port)))
            waiting.register(client.connection, selectors.EVENT_READ, client)
            ask(client)

        waiting.register(sys.stdin, selectors.EVENT_READ)
        for number in range(clients):
            join(ports[number % len(ports)])
        while waiting.get_map():
            for key, _ in waiting.select():
                client = key.data
                if client is None:
                    more = False
                    waiting.unregister(key.fileobj)
                    continue
                data = client.connection.recv(65536)
                client.received += data
                answer = status(bytes(client.received)) if data else "none"
                if answer is None:
                    continue
                statuses[answer] += 1
                client.received.clear()
                if data and more:
                    ask(client)
                    continue
                waiting.unregister(client.connection)
                client.connection.close()
                if more:
                    join(client.port)
    return statuses


if __name__ == "__main__":
    from tests.integration import uncovered  # noqa: F401

    print(json.dumps(loop(int(sys.argv[1]), sys.argv[2], [int(port) for port in sys.argv[3:]])))
