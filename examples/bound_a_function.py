"""
The gate alone: at most two calls of a function at once, over all processes that run this program.

    python examples/bound_a_function.py http://127.0.0.1:9999/ redis://localhost

Run it in several terminals at once, with something slow at that URL. Without the URL of Redis each process has two
slots of its own.
"""

import sys

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from thrtwisted import Counter, LocalGate, RedisGate, Ticket, run

# What a call needs: one slot of the counter "slow-api", which has two.
TICKET = Ticket((Counter("slow-api", 2),))


def fetch(url: str, number: int) -> Deferred[bytes]:
    """The function to be bounded: any that returns a Deferred."""
    print("fetching", number, flush=True)
    return treq.get(f"{url}{number}").addCallback(treq.content)


async def main(reactor, url, redis=None):
    if redis is None:
        gate = LocalGate(reactor)
    else:
        # A job has more patience with Redis than a web server: 2 s for an answer.
        gate = RedisGate(reactor, namespace="bound-a-function", timeout=2.0)
        gate.start(redis)
    try:
        # Ten calls are asked for at once; each waits for its turn.
        pages = await gatherResults([run(gate, TICKET, fetch, url, number) for number in range(10)])
    finally:
        await gate.stop()
    print("fetched", len(pages))


if __name__ == "__main__":
    react(main, sys.argv[1:])
