"""
TLS to Redis: the server's certificate is always verified, its signer, its dates and its name.

Twisted's own check of the name (26.10) lets a certificate pass that names nobody. So it is checked here once more, when
the handshake is over and before anything is sent.
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
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

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
        self._trust = platformTrust() if ca is None else trusted(ca)
        self._certificate: PrivateCertificate | None = None
        self._chain: list[crypto.X509] = []
        if certificate is not None:
            self._certificate, self._chain = own(certificate)

    def client(self, host: str) -> Client:
        """What makes one connection's TLS, to this host."""
        extra = {"extraCertChain": self._chain} if self._chain else {}
        options = optionsForClientTLS(
            host,
            trustRoot=self._trust,
            clientCertificate=self._certificate,
            extraCertificateOptions=extra,
        )
        return Client(options, host)


@implementer(IOpenSSLClientConnectionCreator)
class Client:
    """
    The TLS of one connection.

    @ivar problem: why the server's certificate was not trusted, once that is known.
    """

    def __init__(self, options: IOpenSSLClientConnectionCreator, host: str) -> None:
        self.problem: Exception | None = None
        self._options = options
        self._host = host

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        connection = self._options.clientConnectionForTLS(protocol)
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._signed)
        return connection

    def _signed(self, connection: object, certificate: object, code: int, depth: int, ok: int) -> bool:
        """Keep what OpenSSL finds wrong, which its own error does not tell."""
        if not ok:
            self.problem = self.problem or UntrustedCertificate(code)
        return bool(ok)

    def is_named(self, connection: SSL.Connection) -> bool:
        """Whether the certificate that the server has shown, which is trusted, is for our host."""
        is_address = isIPAddress(self._host) or isIPv6Address(self._host)
        try:
            (verify_ip_address if is_address else verify_hostname)(connection, self._host)
        except (CertificateError, VerificationError):
            self.problem = WrongName(self._host)
        return self.problem is None


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
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(
            f"the file cannot be read ({error.strerror}); correct its name or its rights"
        ) from None
