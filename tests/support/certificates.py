"""A certificate authority for tests: serving and client certificates, written as PEM files."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


def request_for(
    user: str, *groups: str, hosts: tuple[str, ...] = (), key: ec.EllipticCurvePrivateKey | None = None
) -> str:
    """A CertificateSigningRequest's spec.request: PEM in base64."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder(x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)]))
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


class Authority:
    """Writes NAME.crt and NAME.key into `directory`; its own certificate is ca.crt."""

    def __init__(self, directory: Path, name: str = "test-ca") -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = directory / "ca.crt"
        (directory / "ca.key").write_bytes(_pem(self._key))
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def serving(self, name: str, *hosts: str) -> None:
        """A server's certificate for these addresses and DNS names."""
        self._issue(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), hosts)

    def client(self, name: str, user: str, *groups: str, expired: bool = False) -> None:
        """A client's certificate: who it is, or until an hour ago was."""
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        self._issue(name, x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)]), (), expired=expired)

    def signing(self, name: str) -> None:
        """NAME.key alone, of no certificate: what a server signs tokens with."""
        (self.directory / f"{name}.key").write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))

    def _issue(self, name: str, subject: x509.Name, hosts: tuple[str, ...], *, expired: bool = False) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            self._builder(subject, key.public_key(), -timedelta(hours=1) if expired else _DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        (self.directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.directory / f"{name}.key").write_bytes(_pem(key))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, left: timedelta = _DAY
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + left)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )
