"""Certificates, made when a test needs them."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@attrs.frozen
class Identity:
    """
    A certificate and its key.

    @ivar certificate: in PEM, as C{key}.
    """

    certificate: bytes
    key: bytes

    def save(self, directory: str, name: str) -> tuple[str, str, str]:
        """Write the certificate, the key, and both together into files; their paths."""
        paths = []
        for ending, data in (
            ("crt", self.certificate),
            ("key", self.key),
            ("pem", self.certificate + self.key),
        ):
            path = os.path.join(directory, f"{name}.{ending}")
            with open(path, "wb") as file:
                file.write(data)
            paths.append(path)
        return paths[0], paths[1], paths[2]


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "authority") -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.identity = self._made(name, self._key, (), (-DAY, DAY), True)

    @property
    def certificate(self) -> bytes:
        """Its own, in PEM."""
        return self.identity.certificate

    def identify(self, *names: str, valid: tuple[timedelta, timedelta] = (-DAY, DAY)) -> Identity:
        """
        A new identity.

        @param names: hosts and IP addresses.
        @param valid: from when to when, from now.
        """
        return self._made("someone", ec.generate_private_key(ec.SECP256R1()), names, valid, False)

    def _made(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[str, ...],
        valid: tuple[timedelta, timedelta],
        ca: bool,
    ) -> Identity:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(subject))
            .issuer_name(_subject(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        pem = serialization.Encoding.PEM
        return Identity(
            builder.sign(self._key, hashes.SHA256()).public_bytes(pem),
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
