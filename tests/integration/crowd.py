"""
Many clients at once, in a process of their own that costs next to nothing: what is measured is the proxy.

    python -m tests.integration.crowd COUNT TARGET PAUSE PORT...

The number of a request takes the place of C{{}} in the target; the ports take turns. Between two requests is a pause
(seconds). As browsers do, clients keep their connections. At last a line says how many answers there were of each
status, as JSON.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from collections import Counter

_LENGTH = re.compile(rb"\ncontent-length: (\d+)", re.IGNORECASE)


def status(received: bytes) -> str | None:
    """The status of an answer, if all of it is there."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end or len(body) < int(_LENGTH.findall(head)[0]):
        return None
    return head.split()[1].decode()


def crowd(count: int, target: str, pause: float, ports: list[int]) -> Counter[str]:
    """Send all the requests, and wait for all the answers."""
    statuses: Counter[str] = Counter()
    with selectors.DefaultSelector() as waiting:
        for number in range(count):
            time.sleep(pause)
            client = socket.create_connection(("127.0.0.1", ports[number % len(ports)]))
            client.sendall(f"GET {target.format(number)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            waiting.register(client, selectors.EVENT_READ, bytearray())
        while waiting.get_map():
            for key, _ in waiting.select():
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                key.data.extend(data)
                answer = status(bytes(key.data)) if data else "none"
                if answer is not None:
                    statuses[answer] += 1
                    waiting.unregister(key.fileobj)
    return statuses


if __name__ == "__main__":
    from tests.integration import uncovered  # noqa: F401

    print(
        json.dumps(
            crowd(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), [int(port) for port in sys.argv[4:]])
        )
    )
