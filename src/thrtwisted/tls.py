"""
TLS to servers, Redis and backends: the server's certificate is always verified, its signer, its dates and its name.

The name is checked when the handshake is over and before anything is sent. Twisted's C{optionsForClientTLS} is not
used: in 26.10 it lets a certificate pass that names nobody, and it never tells what is wrong with signer or dates.
"""

from __future__ import annotations

import re
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

#: What is said of certificates that are not trusted, by X509_V_ERR_* of openssl/x509_vfy.h: what is wrong, the mend.
_UNTRUSTED = {
    9: ("its certificate is not valid yet", "set the clocks, or renew the certificate"),
    10: ("its certificate has expired", "renew the certificate"),
} | dict.fromkeys(
    (2, 7, 18, 19, 20, 21),
    ("its certificate is signed by nobody who is trusted", "name the signer's certificate in {table}.ca"),
)

#: The reasons of OpenSSL (ssl/ssl_err.c), likewise; "alert" is what the server says. The first that is found counts.
_REASONS = (
    (
        r"alert certificate required|alert handshake failure",
        "it wants a certificate from us",
        "name one, with its key, in {table}.certificate",
    ),
    (
        r"alert (?:unknown ca|bad certificate|certificate \w+|decrypt error)",
        "it does not accept our certificate",
        "correct {table}.certificate, or the server's list of signers",
    ),
    (r"alert protocol version|unsupported protocol", "its TLS is older than 1.2", "renew the server"),
    (
        r"wrong version number|record layer failure|packet length too long|unexpected message",
        "it does not speak TLS at this port",
        "correct the port, or write {plain}:// without TLS",
    ),
)

#: Of what a server says that nobody knows, so much is shown (characters).
LONGEST_TEXT = 200

_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class UntrustedCertificate(Exception):
    """
    The server's certificate is signed by nobody we trust, or not valid now.

    @ivar code: OpenSSL's (X509_V_ERR_* in openssl/x509_vfy.h).
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"X.509 error {code}")
        self.code = code


class WrongName(Exception):
    """
    The server's certificate is another host's.

    @ivar host: as the URL, a sentinel or a node of a cluster names it.
    """

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


class Security:
    """
    What the server's certificate is verified with, and what we show in return. The files are read once.

    @param ca: a file with certificates (PEM): whoever they sign for is trusted. None: whomever the system trusts.
    @param certificate: a file with our certificate, those that lead from it to its signer, and its key (PEM).
    @raise ValueError: a file cannot be used; the message is one line, with the mend.
    """

    def __init__(self, ca: str | None = None, certificate: str | None = None) -> None:
        trust = platformTrust() if ca is None else trusted(ca)
        ours: dict[str, Any] = {}
        if certificate is not None:
            identity, chain = own(certificate)
            ours = {"certificate": identity.original, "privateKey": identity.privateKey.original}
            if chain:
                ours["extraCertChain"] = chain
        self._options = CertificateOptions(trustRoot=trust, **ours)

    def client(self, host: str) -> Client:
        """What makes one connection's TLS, to this host."""
        return Client(self._options, host)


@implementer(IOpenSSLClientConnectionCreator)
class Client:
    """
    The TLS of one connection.

    @ivar problem: why the server's certificate was not trusted, once that is known.
    """

    def __init__(self, options: CertificateOptions, host: str) -> None:
        self.problem: Exception | None = None
        self._options = options
        self._host = host
        self._is_address = isIPAddress(host) or isIPv6Address(host)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        connection = SSL.Connection(self._options.getContext(), None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("idna"))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._signed)
        return connection

    def _signed(self, connection: object, certificate: object, code: int, depth: int, ok: int) -> bool:
        """Keep what OpenSSL finds wrong, which its own error does not tell."""
        if not ok:
            self.problem = self.problem or UntrustedCertificate(code)
        return bool(ok)

    def is_named(self, connection: SSL.Connection) -> bool:
        """Whether the certificate that the server has shown, which is trusted, is for our host."""
        try:
            (verify_ip_address if self._is_address else verify_hostname)(connection, self._host)
        except (CertificateError, VerificationError):
            self.problem = WrongName(self._host)
        return self.problem is None


def complaint(problem: BaseException, table: str, plain: str) -> tuple[str, str] | None:
    """
    What is wrong with a server's TLS, and the mend, in words; None if something else is wrong.

    @param table: of the configuration, where the server's URL and the names of the files are.
    @param plain: the scheme without TLS.
    """
    if isinstance(problem, WrongName):
        mend = f"write a host in {table}.url that it is for, or renew the certificate"
        return f"its certificate is not for {shown(problem)}", mend
    if isinstance(problem, UntrustedCertificate):
        default = f"its certificate is not to be trusted ({problem})", "renew the certificate"
        what, mend = _UNTRUSTED.get(problem.code, default)
        return what, mend.format(table=table)
    if not isinstance(problem, SSL.Error):
        return None
    # A list of errors; or of the system's one its number, and a text.
    said = problem.args[-1] if problem.args else ""
    reasons = "; ".join(str(each[-1]) for each in said if each) if isinstance(said, list) else str(said)
    for pattern, what, mend in _REASONS:
        if re.search(pattern, reasons):
            return what, mend.format(table=table, plain=plain)
    return f"TLS fails ({shown(reasons) or type(problem).__name__})", "see its log"


def shown(text: object) -> str:
    """Text from elsewhere, on one line."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line)[:LONGEST_TEXT]


def trusted(path: str) -> Any:
    """
    The signers in a file.

    @raise ValueError: there are none.
    """
    found = _CERTIFICATE.findall(_read(path))
    try:
        certificates = [Certificate.loadPEM(text) for text in found]
    except crypto.Error:
        certificates = []
    if not certificates:
        raise ValueError("there is no certificate in the file; name one in PEM, with BEGIN CERTIFICATE")
    return trustRootFromCertificates(certificates)


def own(path: str) -> tuple[PrivateCertificate, list[crypto.X509]]:
    """
    The certificate and the key in a file, and the certificates after the first one.

    @raise ValueError: one of them is missing, or they do not belong together.
    """
    data = _read(path)
    if b"ENCRYPTED" in data:  # OpenSSL would ask for it on the terminal
        raise ValueError("the key in the file has a passphrase; put it there without one")
    try:
        certificate = PrivateCertificate.loadPEM(data)
        chain = [Certificate.loadPEM(text).original for text in _CERTIFICATE.findall(data)[1:]]
    except VerifyError:
        raise ValueError(
            "the certificate and the key in the file do not belong together; correct one"
        ) from None
    except crypto.Error:
        raise ValueError(
            "there is no certificate with its key in the file; put both into it, in PEM"
        ) from None
    return certificate, chain


def _read(path: str) -> bytes:
    if "\0" in path:
        raise ValueError("the file's name has a NUL; correct it")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(
            f"the file cannot be read ({error.strerror}); correct its name or its rights"
        ) from None
