"""
The way through Redis: a front has the clients, a worker has the application, and Redis is between them.

The gate decides which worker has a request: a ticket is admitted once all its counters have room, and a worker that
serves its queue has, too. The front then sends the request to that worker's inbox, the worker takes the ticket (from
then on the request may have been executed), forwards the request as a proxy without a relay would, and sends the answer
to the front's inbox.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class IPost(Interface):
    """
    Carries frames from this process to others, and back. What it could not carry is lost: L{IPostUser.up} says so.
    """

    owner: str = Attribute("What this process is called: whoever writes to it writes to this name.")

    def send(peer: str, frame: Any, *, soon: bool = True) -> None:
        """
        Send a L{Frame<thrtwisted.relay.codec.Frame>} to another process. Frames to one process arrive in their order,
        or not at all. While Redis is gone, nothing is sent.

        @param soon: in this turn of the reactor; otherwise with the next that is, or a little later.
        """

    def start(user: Any) -> None:
        """Begin to carry; the user is an L{IPostUser}."""

    def stop() -> Deferred[None]:
        """Send what is on its way, if Redis is there; then close all. Fires when nothing is left. Never errbacks."""


class IPostUser(Interface):
    """Whoever gets the frames. Every call comes from the reactor."""

    def up() -> None:
        """Frames are carried from now on; of those that were sent before, and not acknowledged, all may be lost."""

    def down() -> None:
        """Nothing is carried from now on. Not told before the first L{up}, nor when the post is stopped."""

    def received(frame: Any) -> None:
        """A frame has arrived. It may arrive twice."""
