"""Tests of the table from failures to errors."""

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)

from thrtwisted import errors
from thrtwisted.forward.failures import exchange_error, reason
from thrtwisted.tls import UntrustedCertificate, WrongName


class ExchangeErrorTests(SynchronousTestCase):
    """Each way in which a backend fails has its own answer."""

    def test_table(self):
        """What Twisted says, in our words; the cause is kept, and no host is named."""
        done = Failure(error.ConnectionDone())
        lost = Failure(error.ConnectionLost())
        garbage = Failure(ValueError("invalid"))
        for cause, expected in [
            (CancelledError(), errors.BackendClosed),
            (error.ConnectingCancelledError(None), errors.BackendClosed),
            (error.ConnectionRefusedError(), errors.BackendRefused),
            (error.TimeoutError(), errors.BackendConnectTimeout),
            (error.TCPTimedOutError(), errors.BackendConnectTimeout),
            (error.DNSLookupError("name"), errors.BackendNameUnknown),
            (error.UnknownHostError(), errors.BackendNameUnknown),
            (error.NoRouteError(), errors.BackendUnreachable),
            (error.ConnectBindError(24, "Too many open files"), errors.BackendUnreachable),
            (error.ConnectError(2, "No such file or directory"), errors.BackendUnreachable),
            (OSError(24, "Too many open files"), errors.BackendUnreachable),
            (TimeoutError(), errors.BackendConnectTimeout),
            (UntrustedCertificate(18), errors.BackendUntrusted),
            (WrongName("h"), errors.BackendUntrusted),
            (SSL.Error([]), errors.BackendTLSFailed),
            (ResponseNeverReceived([Failure(SSL.Error([]))]), errors.BackendTLSFailed),
            (error.ConnectionLost(), errors.BackendClosed),
            (RequestTransmissionFailed([lost]), errors.BackendClosed),
            (ResponseNeverReceived([done]), errors.BackendClosed),
            (ResponseFailed([Failure(ResponseFailed([lost]))]), errors.BackendClosed),
            (ResponseFailed([Failure(CancelledError())]), errors.BackendClosed),
            (ResponseFailed([done, garbage]), errors.BackendProtocolError),
            (ResponseFailed([Failure(ResponseFailed([garbage]))]), errors.BackendProtocolError),
        ]:
            answer = exchange_error(Failure(cause))
            self.assertIs(type(answer), expected, repr(cause))
            self.assertIs(answer.__cause__, cause)

    def test_reason(self):
        """What the log says: with the mend where it is known, else what the client is told."""
        alert = SSL.Error([("", "", "tlsv13 alert certificate required")])
        for cause, expected in [
            (error.ConnectionRefusedError(), "the backend refuses connections"),
            (
                UntrustedCertificate(10),
                "its certificate has expired (mend: renew the certificate)",
            ),
            (
                ResponseFailed([Failure(error.ConnectionDone()), Failure(alert)]),
                "it wants a certificate from us (mend: name one, with its key, in backend.app.certificate)",
            ),
            (ResponseFailed([Failure(ValueError())]), "the backend's answer is not an HTTP response"),
        ]:
            self.assertEqual(reason(exchange_error(Failure(cause)), "app"), expected)
        self.assertEqual(reason(errors.BackendClosed("It is ours."), "app"), "it is ours")

    def test_ours(self):
        """An error that has our words already stays as it is."""
        ours = errors.BackendClosed("It is ours.")
        self.assertIs(exchange_error(Failure(ours)), ours)

    def test_unforeseen(self):
        """Anything else is a mistake of ours: logged, and answered 500."""
        for cause in [ZeroDivisionError("x"), RequestGenerationFailed([Failure(OSError("x"))])]:
            answer = exchange_error(Failure(cause))
            self.assertEqual(answer.status, 500)
            self.assertNotIn("x", str(answer).split())
            self.assertEqual(len(self.flushLoggedErrors(type(cause))), 1)
