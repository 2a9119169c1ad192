"""
Bodies in chunks (RFC 9112, section 7.1): bytes in, the body's bytes out or a refusal.

Pure and strict: sizes are hexadecimal digits alone, lines end with CR LF, extensions and trailers have to be
well-formed and are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from thrtwisted.config import Bounds
from thrtwisted.errors import BadRequest, BodyTooLarge, HeadTooLarge
from thrtwisted.grammar import QUOTED, TOKEN, Malformed, parse_field

#: Bytes of a line of the framing: of a chunk's size with its extensions, or of a trailer field.
LINE_LENGTH = 4096

#: chunk-size [ chunk-ext ], without blanks (section 7.1.1); sixteen digits are 64 bits
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;%b(?:=(?:%b|\"%b\"))?)*)" % (TOKEN, TOKEN, QUOTED))
#: The line before nearly all chunks: a size alone.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")


class ChunkedBody:
    """
    A body that comes in chunks.

    @param bounds: C{body_size} bounds the body; C{head_size} and C{header_count} bound the trailers; extensions may
        take C{head_size} bytes more than the body so far.
    @ivar ended: the body and its trailers are complete.
    @ivar rest: what came after them.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.ended = False
        self.rest = b""
        self._bounds = bounds
        self._announced = 0
        self._extensions = 0
        self._trailers = 0
        self._trailers_size = 0
        #: Bytes of the chunk that are still to come.
        self._left = 0
        #: A line that has begun; never more than L{LINE_LENGTH} and a CR.
        self._partial = b""
        #: What is done with the next line. Not a bound method: the body would refer to itself.
        self._take_line: Callable[[ChunkedBody, bytes], None] = ChunkedBody._size

    def feed(self, data: bytes) -> list[bytes]:
        """
        The pieces of the body that these bytes bring.

        @raise BadRequest: they are no chunks.
        @raise BodyTooLarge: a chunk is announced that makes the body too large.
        @raise HeadTooLarge: there are too many trailers.
        """
        pieces: list[bytes] = []
        data, self._partial = self._partial + data, b""
        position = 0
        while position < len(data) and not self.ended:
            if self._left:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                continue
            if self._take_line is ChunkedBody._size:
                position = self._whole(data, position, pieces)
            line_end = data.find(b"\r\n", position, position + LINE_LENGTH + 2)
            if line_end < 0:
                self._partial = data[position : position + LINE_LENGTH + 2]
                self._check_partial()
                return pieces
            self._take_line(self, data[position:line_end])
            position = line_end + 2
        self.rest += data[position:]
        return pieces

    def _whole(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """
        Take the plain chunks that stand here whole, many in one go: some programs send every byte in one of its own.

        What is refused, and the last chunk, is left to those who look at one line after the other.

        @return: where that begins, or whatever else is no such chunk.
        """
        announced, bound = self._announced, self._bounds.body_size
        while (line := _SIZE.match(data, position)) is not None:
            begin, size = line.end(), int(line[1], 16)
            if not size or announced + size > bound or not data.startswith(b"\r\n", begin + size):
                break
            pieces.append(data[begin : begin + size])
            announced += size
            position = begin + size + 2
        self._announced = announced
        return position

    def _size(self, line: bytes) -> None:
        """A chunk begins, or the trailers after the last."""
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise BadRequest("The request's body is malformed: a chunk does not begin with its size.")
        digits, extensions = match.groups()
        size = int(digits, 16)
        self._announced += size
        if self._announced > self._bounds.body_size:
            raise BodyTooLarge("The request's body is too large.")
        self._extensions += len(extensions)
        if self._extensions > self._bounds.head_size + self._announced:
            raise BadRequest("The chunk extensions of the request's body are too large.")
        self._left = size
        self._take_line = ChunkedBody._end_of_data if size else ChunkedBody._trailer

    def _end_of_data(self, line: bytes) -> None:
        """A chunk ends."""
        if line:
            raise _no_end_of_data()
        self._take_line = ChunkedBody._size

    def _trailer(self, line: bytes) -> None:
        """A trailer field, or the empty line after them (section 7.1.2)."""
        if not line:
            self.ended = True
            return
        self._trailers += 1
        self._trailers_size += len(line) + 2
        if self._trailers > self._bounds.header_count or self._trailers_size > self._bounds.head_size:
            raise HeadTooLarge("The trailers of the request's body are too large.")
        try:
            parse_field(line)
        except Malformed as error:
            raise BadRequest(f"The trailers of the request's body are malformed: {error}.") from None

    def _check_partial(self) -> None:
        """Refuse at once what cannot become a line, so that nobody waits in vain for its end."""
        if self._take_line is ChunkedBody._end_of_data and self._partial != b"\r":
            raise _no_end_of_data()
        if b"\n" in self._partial or b"\r" in self._partial[:-1]:
            raise BadRequest("The request's body is malformed: a line does not end with CR LF.")
        if len(self._partial.removesuffix(b"\r")) > LINE_LENGTH:
            raise BadRequest("The request's body is malformed: a line between its chunks is too long.")


def _no_end_of_data() -> BadRequest:
    return BadRequest("The request's body is malformed: a chunk is longer than its size.")
