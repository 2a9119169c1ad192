"""
What a client is answered when its exchange cannot be completed.

A flat family: every error carries the HTTP status to answer and its error type of the ``Proxy-Status`` header
(RFC 9209, section 2.3), so that the resource needs one handler for all of them.
"""

from __future__ import annotations

from typing import ClassVar

#: What those are told whom a stopping proxy serves no more.
STOPPING = "The proxy is stopping."


class ExchangeError(Exception):
    """
    An exchange that ends with an answer of the proxy's own.

    The message is shown to the client: it names neither hosts nor files.

    @ivar retry_after: seconds after which the client may try again, or None for no C{Retry-After} header.
    """

    status: ClassVar[int] = 500
    proxy_status: ClassVar[str] = "proxy_internal_error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BadRequest(ExchangeError):
    """The request cannot be forwarded as it stands."""

    status = 400
    proxy_status = "http_request_error"


class RequestTimeout(ExchangeError):
    """The request did not come in the time that the bounds give it."""

    status = 408
    proxy_status = "http_request_error"


class BodyTooLarge(ExchangeError):
    """The request's body is larger than C{body_size}."""

    status = 413
    proxy_status = "http_request_error"


class TargetTooLong(ExchangeError):
    """The request's target is longer than C{target_length}."""

    status = 414
    proxy_status = "http_request_error"


class ExpectationFailed(ExchangeError):
    """The request expects something other than C{100-continue}."""

    status = 417
    proxy_status = "http_request_error"


class HeadTooLarge(ExchangeError):
    """The request's head is larger than C{head_size}, or has more fields than C{header_count}."""

    status = 431
    proxy_status = "http_request_error"


class MethodNotImplemented(ExchangeError):
    """The request's method is none that a reverse proxy can forward."""

    status = 501
    proxy_status = "http_request_error"


class CodingNotImplemented(ExchangeError):
    """The request's body has a transfer coding other than C{chunked}."""

    status = 501
    proxy_status = "http_request_error"


class VersionNotSupported(ExchangeError):
    """The request's version is neither HTTP/1.1 nor HTTP/1.0."""

    status = 505
    proxy_status = "http_request_error"


class TooManyConnections(ExchangeError):
    """As many connections are open as C{connections} or C{connections_per_client} allow."""

    status = 503
    proxy_status = "connection_limit_reached"


class RuleFailed(ExchangeError):
    """A rule or a function of the configuration failed; the log says how, and its client need not know."""

    status = 500
    proxy_status = "proxy_configuration_error"

    def __init__(
        self,
        message: str = "The configuration of the proxy failed for this request.",
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)


class QueueFull(ExchangeError):
    """As many tickets wait already as the configuration allows."""

    status = 503
    proxy_status = "connection_limit_reached"


class QueueTimeout(ExchangeError):
    """The ticket waited as long as the configuration allows."""

    status = 503
    proxy_status = "connection_limit_reached"


class RateExceeded(ExchangeError):
    """The exchange is over a rate that rejects, rather than let wait."""

    status = 429
    proxy_status = "http_request_denied"


class GateUnavailable(ExchangeError):
    """The gate cannot admit: Redis does not answer, or the proxy is stopping."""

    status = 503
    proxy_status = "proxy_internal_error"

    @classmethod
    def stopping(cls) -> GateUnavailable:
        """The proxy is stopping; another may be there at once."""
        return cls(STOPPING, retry_after=1.0)


class SpoolFull(ExchangeError):
    """The request's body does not fit on the disk beside those of others."""

    status = 503
    proxy_status = "proxy_internal_error"


class AuthFailed(ExchangeError):
    """The service that says who may pass gave no answer, or none that is meant for a client."""

    status = 502
    proxy_status = "proxy_internal_error"


class BackendRefused(ExchangeError):
    """The backend's address refused the connection."""

    status = 502
    proxy_status = "connection_refused"


class BackendUnreachable(ExchangeError):
    """There is no way to the backend's address: no route, no such socket, too many open files."""

    status = 502
    proxy_status = "destination_unavailable"


class BackendNameUnknown(ExchangeError):
    """The name of the backend's host cannot be resolved."""

    status = 502
    proxy_status = "dns_error"


class BackendUntrusted(ExchangeError):
    """The backend's certificate is signed by nobody who is trusted, not valid now, or another host's."""

    status = 502
    proxy_status = "tls_certificate_error"


class BackendTLSFailed(ExchangeError):
    """The backend and the proxy could not agree on TLS."""

    status = 502
    proxy_status = "tls_protocol_error"


class BackendConnectTimeout(ExchangeError):
    """The backend did not accept the connection in C{connect_timeout}."""

    status = 504
    proxy_status = "connection_timeout"


class BackendClosed(ExchangeError):
    """The backend closed the connection before its response's head was complete."""

    status = 502
    proxy_status = "connection_terminated"


class BackendProtocolError(ExchangeError):
    """What the backend sent is not an HTTP response."""

    status = 502
    proxy_status = "http_protocol_error"


class BackendResponseTimeout(ExchangeError):
    """The backend's response did not start in C{response_timeout}."""

    status = 504
    proxy_status = "http_response_timeout"


class WorkerLost(ExchangeError):
    """The worker that had the request is gone: it may have been executed, or not."""

    status = 502
    proxy_status = "connection_terminated"
