"""Tests of L{thrtwisted.tls}: its files, and its words. Its connections are Redis's and the backends'."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from thrtwisted.tls import (
    LONGEST_TEXT,
    Security,
    UntrustedCertificate,
    WrongName,
    complaint,
    own,
    shown,
    trusted,
)


class FilesTests(SynchronousTestCase):
    """The files of L{Security}."""

    def written(self, data: bytes) -> str:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_unusable(self) -> None:
        """What cannot be used is refused in one line, with the mend."""
        authority = Authority()
        one, other = authority.identify(), authority.identify()
        garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        locked = one.certificate + one.key.replace(b"PRIVATE", b"ENCRYPTED PRIVATE")
        cases = [
            (trusted, b"", "no certificate in the file"),
            (trusted, garbage, "no certificate in the file"),
            (trusted, one.key, "no certificate in the file"),
            (own, b"", "no certificate with its key"),
            (own, one.certificate, "no certificate with its key"),
            (own, one.key, "no certificate with its key"),
            (own, garbage + one.key, "no certificate with its key"),
            (own, one.certificate + other.key, "do not belong together"),
            (own, locked, "has a passphrase"),
        ]
        for read, data, text in cases:
            error = self.assertRaises(ValueError, read, self.written(data))
            self.assertIn(text, str(error))
            self.assertIn("; ", str(error))
            self.assertTrue(str(error).isprintable())
            self.assertTrue(error.__suppress_context__ or error.__cause__ is None)
        for read in (trusted, own):
            error = self.assertRaises(ValueError, read, "/nonexistent")
            self.assertIn("cannot be read (No such file or directory)", str(error))
            error = self.assertRaises(ValueError, read, "a\0b")
            self.assertEqual(str(error), "the file's name has a NUL; correct it")

    def test_chain(self) -> None:
        """What follows our own certificate is sent along."""
        authority = Authority()
        identity = authority.identify()
        _, chain = own(self.written(identity.certificate + authority.certificate + identity.key))
        self.assertEqual([each.get_subject().CN for each in chain], ["authority"])
        self.assertEqual(own(self.written(identity.certificate + identity.key))[1], [])
        Security(None, self.written(identity.certificate + authority.certificate + identity.key)).client("h")


class ComplaintTests(SynchronousTestCase):
    """What is wrong, and the mend, for whichever table of the configuration."""

    def test_table(self) -> None:
        """What OpenSSL says, in words."""
        for problem, what, mend in [
            (UntrustedCertificate(9), "its certificate is not valid yet", "set the clocks"),
            (UntrustedCertificate(10), "its certificate has expired", "renew the certificate"),
            (UntrustedCertificate(18), "its certificate is signed by nobody who is trusted", "in T.ca"),
            (UntrustedCertificate(23), "its certificate is not to be trusted (X.509 error 23)", "renew"),
            (WrongName("h"), "its certificate is not for h", "write a host in T.url"),
            (
                SSL.Error([("SSL routines", "", "tlsv13 alert certificate required")]),
                "it wants a certificate from us",
                "in T.certificate",
            ),
            (
                SSL.Error([("", "", "tlsv1 alert unknown ca")]),
                "it does not accept our certificate",
                "correct T.certificate",
            ),
            (SSL.Error([("", "", "unsupported protocol")]), "its TLS is older than 1.2", "renew the server"),
            (
                SSL.Error([("", "", "wrong version number")]),
                "it does not speak TLS at this port",
                "write P:// without TLS",
            ),
            (SSL.Error([("", "", "strange")]), "TLS fails (strange)", "see its log"),
            (SSL.Error(104, "Unexpected EOF"), "TLS fails (Unexpected EOF)", "see its log"),
            (SSL.Error(), "TLS fails (Error)", "see its log"),
        ]:
            words = complaint(problem, "T", "P")
            assert words is not None
            self.assertEqual(words[0], what)
            self.assertIn(mend, words[1])
        self.assertIsNone(complaint(ConnectionDone(), "T", "P"))

    def test_shown(self) -> None:
        """What others say is on one line, of characters that can be printed, and not too long."""
        self.assertEqual(shown("a\n b\x1b[31m"), "a b?[31m")
        self.assertEqual(len(shown("x" * 10_000)), LONGEST_TEXT)
