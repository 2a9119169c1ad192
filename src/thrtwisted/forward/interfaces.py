"""What a way to a backend is, and one exchange on it: directly, or through Redis to a worker."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from thrtwisted.exchange import Exchange, ResponseHead
from thrtwisted.gate import IAdmission

from .body import RequestBody


class IForwarder(Interface):
    """Forwards exchanges to one backend."""

    name: str = Attribute("The backend's, in the configuration.")
    queue: str | None = Attribute(
        "What the ticket of an exchange has to name, so that it is admitted only together with a place at a worker; "
        "None where this process itself forwards."
    )

    def start() -> None:
        """Begin with what goes on beside the exchanges, such as to ask for the health of URLs."""

    def send(exchange: Exchange, body: RequestBody, admission: IAdmission | None = None) -> IForwarding:
        """
        Begin at once to forward an exchange.

        @param body: is closed by the forwarding, whatever happens.
        @param admission: is the forwarding's from now on, which releases it, or what has taken its place, exactly once:
            just before C{done} fires; but what others may be at work on when this process stops is left to the gate,
            whose end comes next. None: there is nothing to release.
        """

    def close() -> Deferred[None]:
        """
        Break off what is under way.

        @return: fires when every forwarding is done and nothing is left in the reactor. Never errbacks.
        """


class IForwarding(Interface):
    """
    One exchange on its way to the backend and back.

    It ends once, when the backend has finished with it, however that comes about. Until then the client may come and
    go.
    """

    head: Deferred[ResponseHead] = Attribute(
        "Fires with the head of the response. Errbacks with an ExchangeError only. Cancelling abandons."
    )
    done: Deferred[None] = Attribute(
        "Fires once, when the backend has finished with the exchange: its slots are free. Never errbacks; do not "
        "cancel it. C{head} has always fired before, or was cancelled."
    )
    method: bytes = Attribute("The method that the backend sees.")

    def deliver(request: Any) -> Deferred[None]:
        """
        Send the response's body to the client, and finish the request; status and headers are set already.

        If the response is cut, the client's connection is aborted instead.

        @param request: a L{twisted.web.http.Request}.
        @return: fires when the client was given everything, or has left. Never errbacks.
        @raise RuntimeError: the response's head is not there yet.
        """

    def read(limit: int) -> Deferred[bytes]:
        """
        Read the response's body before it is delivered.

        @param limit: bytes that it may have.
        @return: as L{ResponseBody.read<thrtwisted.forward.body.ResponseBody.read>}.
        @raise RuntimeError: the response's head is not there yet.
        """

    def abandon() -> None:
        """
        Nobody wants the answer any more: what is not sent yet is not sent, what is goes on, for C{abandon_timeout}
        seconds, and its response is dropped. It may be called at any time, and again.
        """
