"""The certificates of a box: one authority, and a certificate for every process that speaks or listens.

Files are PEM, keys 0600. `ensure` makes what is missing, names other hosts than asked for, or expires within 30 days.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

RENEW_BEFORE = timedelta(days=30)
AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)

Host = str | IPv4Address | IPv6Address


def write_private(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read, in one step."""
    part = path.with_name(path.name + ".new")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _fresh(certificate: x509.Certificate | None) -> bool:
    return certificate is not None and certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE


class Authority:
    """The box's own certificate authority, in DIRECTORY/ca.crt and ca.key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate_path = directory / "ca.crt"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate = _load(self.certificate_path)
        if certificate is None or not _fresh(certificate):
            certificate = self._create()
        self._certificate = certificate
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @property
    def pem(self) -> str:
        return self.certificate_path.read_text()

    def _create(self) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubesvc-ca")])
        now = datetime.now(UTC)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(self.directory / "ca.key", _key_pem(key))
        write_private(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        return certificate

    def ensure(self, name: str, common_name: str, groups: Sequence[str] = (), hosts: Sequence[Host] = ()) -> Path:
        """DIRECTORY/NAME.crt and .key for `common_name` (and organisations `groups`); with `hosts` also a server's.

        Returns the certificate's path.
        """
        path = self.directory / f"{name}.crt"
        certificate = _load(path)
        wanted = {str(host) for host in hosts}
        if certificate is not None and path.with_suffix(".key").exists() and self._vouches(certificate, wanted):
            return path
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                self._certificate.subject, x509.Name(subject), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            names = [x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        write_private(path.with_suffix(".key"), _key_pem(key))
        write_private(path, signed.public_bytes(serialization.Encoding.PEM))
        return path

    def signing_key(self, name: str) -> Path:
        """DIRECTORY/NAME.key, of no certificate: what tokens are signed with, as long as the box lives."""
        path = self.directory / f"{name}.key"
        if not path.exists():
            write_private(path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
        return path

    def _vouches(self, certificate: x509.Certificate, hosts: set[str]) -> bool:
        """Whether the certificate is this authority's, fresh, and for just these hosts."""
        if not _fresh(certificate) or _hosts(certificate) != hosts:
            return False
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except Exception:  # cryptography raises several kinds; each means "no"
            return False
        return True

    def kubeconfig(self, path: Path, certificate: Path, server: str, name: str, user: str) -> Path:
        """Write a kubeconfig with everything inline: usable wherever it is copied."""

        def data(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {"server": server, "certificate-authority-data": data(self.certificate_path)},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": data(certificate),
                        "client-key-data": data(certificate.with_suffix(".key")),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
        write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
        return path


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    found: set[str] = set()
    for name in names:
        value: str | IPv4Address | IPv6Address | IPv4Network | IPv6Network
        if isinstance(name, x509.DNSName | x509.IPAddress):
            value = name.value
            found.add(str(value))
    return found
