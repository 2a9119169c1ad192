"""
What fronts and workers say to each other, as bytes: frames, in MessagePack. Pure.

Each frame belongs to an I{exchange}, which is named by its front and a number that the front counts up; a request that
goes to another worker is another exchange. An exchange has two I{flows}, one each way. Frames of a flow are numbered,
and are done in this order, each once, however often they arrive; C{ack} says up to which frame of the other flow all
was consumed. A frame with the number 0 stands outside of the flow: it is done whenever it comes, as often as it comes.

A front says C{OPEN}, then C{DATA} as long as the request has a body, then C{END}; or C{ABANDON}, at any time.

A worker says C{REFUSED}, and nothing else; or C{HEAD}, then C{DATA}, then C{END} or C{CUT}; or C{FAILED} in place of
the head. Its last word is always C{DONE}: the backend has finished with the exchange, and the slot is free. That may be
long before the front has taken all of a body, so it is said outside of the flow too.

Whoever hears of an exchange that he does not know, any more, says C{GONE}; but a worker that is asked answers that it
has heard L{NOTHING}, for the opening may be lost.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec
from msgspec import Struct, msgpack
from twisted.web.http_headers import Headers

#: Names of header fields, each with its values.
Fields = list[tuple[bytes, list[bytes]]]


#: What was heard by a worker that does not know the exchange. A front that knows no better opens it again; to one that
#: knows that the worker had it, this says that it is gone.
NOTHING = -1


class Kind(IntEnum):
    """What a frame says."""

    #: Of the front
    OPEN = 1  # an L{Opening}
    ABANDON = 2  # nobody waits for the answer any more
    #: Of the worker
    REFUSED = 11  # the request was not begun, and will not be: another worker may have it
    HEAD = 12  # a L{Head}
    FAILED = 13  # a L{Problem}
    CUT = 14  # the response's body has ended before its end
    DONE = 15  # the backend has finished
    #: Of both
    DATA = 21  # bytes of a body
    END = 22  # of a body
    ACK = 23  # nothing but the C{ack}; of who asks, or was asked: also a L{Question}
    GONE = 24  # the exchange is not known (any more)


class Frame(Struct, frozen=True, array_like=True):
    """
    @ivar front: the owner whose exchange it is.
    @ivar number: of the exchange, among those of its front.
    @ivar kind: a L{Kind}.
    @ivar seq: its place in its flow, from 1 on; or 0.
    @ivar ack: the frames of the other flow up to this one are consumed.
    @ivar more: the payload goes on in the next frame of the flow, which is of the same kind.
    @ivar sender: who says it, where an answer is wanted of one who may not know the exchange any more; or empty.
    @ivar window: bytes that its sender has under way at once; said in the first frame of a flow, otherwise 0.
    """

    front: str
    number: int
    kind: int
    seq: int = 0
    ack: int = 0
    more: bool = False
    payload: bytes = b""
    sender: str = ""
    window: int = 0


class Opening(Struct, frozen=True, array_like=True):
    """
    A request.

    @ivar serial: of its ticket, which the worker has to take before it begins.
    @ivar queue: the backend's name.
    @ivar headers: names with their values, hop-by-hop fields removed.
    @ivar length: bytes of the body, which are those of its C{DATA} together.
    """

    serial: int
    queue: str
    method: bytes
    target: bytes
    headers: Fields
    version: bytes
    length: int


class Head(Struct, frozen=True, array_like=True):
    """The head of a response, as L{thrtwisted.exchange.ResponseHead}; C{method} is what the backend saw."""

    status: int
    phrase: bytes
    headers: Fields
    length: int | None


class Question(Struct, frozen=True, array_like=True):
    """
    What one asks who may have lost something, or whose words may be lost.

    @ivar number: of the question, among those of whoever asks; 0 for an answer alone.
    @ivar answers: the number of the question that is answered; 0 if none is. To what answers, nothing is asked back.
    @ivar heard: the last C{seq} that was heard, which may be beyond the C{ack}; or L{NOTHING}.
    """

    number: int
    answers: int
    heard: int


class Problem(Struct, frozen=True, array_like=True):
    """
    Why there is no response.

    @ivar error: the name of an L{ExchangeError<thrtwisted.errors.ExchangeError>}.
    @ivar text: what the client is told.
    @ivar retry_after: seconds, or None.
    """

    error: str
    text: str
    retry_after: float | None = None


#: What msgspec raises besides its own: for a text that is not UTF-8, and for what is nested very deep.
ALSO_GARBAGE = (UnicodeDecodeError, RecursionError)

_encoder = msgpack.Encoder()
_frames = msgpack.Decoder(list[Frame])


def encode(frames: list[Frame]) -> bytes:
    """Frames as one message."""
    return _encoder.encode(frames)


def decode(message: bytes) -> list[Frame]:
    """
    The frames of a message.

    @raise msgspec.DecodeError: nobody of ours has written it.
    """
    try:
        return _frames.decode(message)
    except ALSO_GARBAGE as error:
        raise msgspec.DecodeError(str(error)) from None


def fields_of(headers: Headers) -> Fields:
    """Header fields as frames carry them."""
    return [(name, list(values)) for name, values in headers.getAllRawHeaders()]


def headers_of(fields: Fields) -> Headers:
    """Header fields as messages have them."""
    headers = Headers()
    for name, values in fields:
        headers.setRawHeaders(name, values)
    return headers


def encode_payload(payload: Opening | Head | Question | Problem) -> bytes:
    """What a frame carries."""
    return _encoder.encode(payload)


def decode_payload(payload: bytes, kind: type[Any]) -> Any:
    """
    What a frame carries.

    @raise msgspec.DecodeError: it is not that.
    """
    try:
        return msgpack.decode(payload, type=kind)
    except ALSO_GARBAGE as error:
        raise msgspec.DecodeError(str(error)) from None
