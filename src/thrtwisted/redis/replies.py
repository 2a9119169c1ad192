"""
What a server of Redis says, as bytes and as values: its protocol RESP2. Pure.

txredisapi reads this protocol, too; but it has to come back to the reactor after each string, and a reply that carries
frames has many.
"""

from __future__ import annotations

from typing import Any

import txredisapi

#: Bytes of a line that is no string's content: numbers and errors, which repeat what they did not understand.
LONGEST_LINE = 65536


class Replies:
    """
    Reads replies: bytes (also the simple strings that servers say in place of OK), numbers, None, lists of these, and
    C{txredisapi.ResponseError}, which may stand in lists, too.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        # Bytes without which there is nothing to read; lists that are not complete, with how many items they lack
        self._wanted = 0
        self._open: list[tuple[list[Any], int]] = []

    def feed(self, data: bytes) -> list[Any]:
        """
        The replies that are complete now.

        @raise txredisapi.InvalidData: whoever says this is no Redis. Do not go on.
        """
        self._chunks.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return []
        if len(self._chunks) > 1:
            data = b"".join(self._chunks)
        replies: list[Any] = []
        at = self._read(data, replies)
        rest = data[at:]
        self._chunks, self._size = ([rest] if rest else []), len(rest)
        return replies

    def _read(self, data: bytes, replies: list[Any]) -> int:
        """Read what there is; up to where it was read."""
        at, length = 0, len(data)
        find = data.find
        self._wanted = 0
        while True:
            end = find(b"\r\n", at)
            if end < 0:
                if length - at > LONGEST_LINE:
                    raise _nonsense(data[at : at + 20])
                return at
            kind, after = data[at], end + 2
            item: Any
            try:
                if kind == 36:  # $
                    size = int(data[at + 1 : end])
                    if size < 0:
                        item = None
                    else:
                        content, after = after, after + size + 2
                        if after > length:
                            self._wanted = after - at
                            return at
                        item = data[content : after - 2]
                elif kind == 42:  # *
                    count = int(data[at + 1 : end])
                    if count > 0:
                        self._open.append(([], count))
                        at = after
                        continue
                    item = None if count < 0 else []
                elif kind == 58:  # :
                    item = int(data[at + 1 : end])
                elif kind == 43:  # +
                    item = data[at + 1 : end]
                elif kind == 45:  # -
                    item = txredisapi.ResponseError(data[at + 1 : end].decode("utf-8", "replace"))
                else:
                    raise _nonsense(data[at:end])
            except ValueError:
                raise _nonsense(data[at:end]) from None
            at = after
            while self._open:
                items, count = self._open[-1]
                items.append(item)
                if len(items) < count:
                    break
                self._open.pop()
                item = items
            else:
                replies.append(item)


def _nonsense(line: bytes) -> Exception:
    return txredisapi.InvalidData(f"not of Redis's protocol: {line[:40]!r}")
