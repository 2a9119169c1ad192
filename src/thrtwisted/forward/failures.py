"""What went wrong between the proxy and a backend, in the words of L{thrtwisted.errors}: one table."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseFailed

from thrtwisted.errors import (
    BackendClosed,
    BackendConnectTimeout,
    BackendNameUnknown,
    BackendProtocolError,
    BackendRefused,
    BackendTLSFailed,
    BackendUnreachable,
    BackendUntrusted,
    ExchangeError,
)
from thrtwisted.tls import UntrustedCertificate, WrongName, complaint

_log = Logger()

#: Connecting failed. The first row that fits counts: a refused connection is a ConnectError too.
_CONNECTING: tuple[tuple[tuple[type[BaseException], ...], type[ExchangeError], str], ...] = (
    ((CancelledError, error.ConnectingCancelledError), BackendClosed, "The request was given up."),
    ((error.ConnectionRefusedError,), BackendRefused, "The backend refuses connections."),
    (
        (error.TimeoutError, error.TCPTimedOutError, TimeoutError),
        BackendConnectTimeout,
        "The backend did not accept the connection in time.",
    ),
    (
        (error.DNSLookupError, error.UnknownHostError),
        BackendNameUnknown,
        "The backend's name cannot be resolved.",
    ),
    ((UntrustedCertificate, WrongName), BackendUntrusted, "The backend's certificate is not to be trusted."),
    ((SSL.Error,), BackendTLSFailed, "TLS with the backend failed."),
    ((error.ConnectError, OSError), BackendUnreachable, "The backend cannot be reached."),
)
#: What says, of a request for which there was no connection yet, that its URL cannot be used now.
UNREACHED = (
    BackendClosed,
    BackendConnectTimeout,
    BackendNameUnknown,
    BackendRefused,
    BackendTLSFailed,
    BackendUnreachable,
    BackendUntrusted,
)
#: What connect(2) and socket(2) lack on our side: another URL, or the same one later, is no help.
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
#: Among the reasons of a failed response these say that the connection ended; any other, that it was garbage.
_ENDED = (error.ConnectionClosed, CancelledError)


def exchange_error(failure: Failure) -> ExchangeError:
    """
    What the client is told about a request that failed. The cause is kept in C{__cause__}, for the log.

    What no row foresees is a mistake of ours: it is logged, and the client gets a 500.
    """
    cause: Any = failure.value
    if isinstance(cause, ExchangeError):
        return cause
    answer = _connected(cause) or _connecting(cause)
    if answer is None:
        _log.failure("A request could not be forwarded", failure=failure)
        answer = ExchangeError("The proxy could not forward the request.")
    answer.__cause__ = cause
    return answer


def is_ours(answer: ExchangeError) -> bool:
    """Whether there is no connection because the proxy's own system has no more to give, such as file descriptors."""
    return getattr(answer.__cause__, "osError", None) in _OURS


def reason(answer: ExchangeError, name: str, kind: str = "backend") -> str:
    """
    Why a backend's URL cannot be used, for the log, with the mend where that is known.

    @param name: the backend's.
    @param kind: of the table that configures it.
    """
    cause = answer.__cause__
    for each in _reasons(cause) if isinstance(cause, ResponseFailed) else [cause or answer]:
        words = complaint(each, f"{kind}.{name}", "http")
        if words is not None:
            return " (mend: ".join(words) + ")"
    text = str(answer).rstrip(".")
    return text[:1].lower() + text[1:]


def _connecting(cause: BaseException) -> ExchangeError | None:
    for kinds, answer, message in _CONNECTING:
        if isinstance(cause, kinds):
            return answer(message)
    return None


def _connected(cause: BaseException) -> ExchangeError | None:
    """For what went wrong on an open connection; None for anything else, such as an unreadable body."""
    if isinstance(cause, (RequestTransmissionFailed, error.ConnectionClosed)):
        return BackendClosed("The backend closed the connection before it had the whole request.")
    if isinstance(cause, ResponseFailed):
        if all(isinstance(reason, _ENDED) for reason in _reasons(cause)):
            return BackendClosed("The backend closed the connection before it answered.")
        if any(isinstance(reason, SSL.Error) for reason in _reasons(cause)):
            return BackendTLSFailed("TLS with the backend failed.")
        return BackendProtocolError("The backend's answer is not an HTTP response.")
    return None


def _reasons(cause: ResponseFailed) -> Iterator[BaseException]:
    for reason in cause.reasons:
        if isinstance(reason.value, ResponseFailed):
            yield from _reasons(reason.value)
        else:
            yield reason.value
