"""The certificates of a box: one authority, and a certificate for every process that speaks or listens.

Files are PEM and 0600. `ensure` makes what is missing, names other hosts than asked for, or nears its end: the last 30
days of a year, the last third of a shorter life. The authority itself lives ten years.
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

from kubesvc.client.pemfiles import write_private

RENEW_BEFORE = timedelta(days=30)  # or a third of a life that is shorter than three times that
AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
BACKDATE = timedelta(minutes=5)  # for clocks that are behind; a tenth of a shorter life

Host = str | IPv4Address | IPv6Address


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _fresh(certificate: x509.Certificate | None, before: timedelta) -> bool:
    return certificate is not None and certificate.not_valid_after_utc - datetime.now(UTC) > before


class Authority:
    """The box's own certificate authority, in DIRECTORY/ca.crt and ca.key."""

    def __init__(self, directory: Path, life: timedelta = LEAF_LIFE) -> None:
        """`life` is that of the certificates it makes."""
        self.directory = directory
        self._life = life
        self.certificate_path = directory / "ca.crt"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate = _load(self.certificate_path)
        if certificate is None or not _fresh(certificate, RENEW_BEFORE):
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
        wanted, before = {str(host) for host in hosts}, min(RENEW_BEFORE, self._life / 3)
        if not path.with_suffix(".key").exists() or not self._vouches(_load(path), wanted, before):
            certificate, key = self._issue(common_name, groups, hosts)
            write_private(path.with_suffix(".key"), key)
            write_private(path, certificate)
        return path

    def ensure_own(self, name: str, common_name: str, groups: Sequence[str]) -> Path:
        """DIRECTORY/NAME.pem, certificate and key in one, for who renews it itself: made anew only if it isn't there or
        has expired."""
        path = self.directory / f"{name}.pem"
        if not self._vouches(_load(path), set(), timedelta()):
            write_private(path, b"".join(self._issue(common_name, groups, ())))
        return path

    def _issue(self, common_name: str, groups: Sequence[str], hosts: Sequence[Host]) -> tuple[bytes, bytes]:
        """A certificate and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                self._certificate.subject, x509.Name(subject), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now - min(BACKDATE, self._life / 10))
            .not_valid_after(min(now + self._life, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            names = [x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM), _key_pem(key)

    def signing_key(self, name: str) -> Path:
        """DIRECTORY/NAME.key, of no certificate: what tokens are signed with, as long as the box lives."""
        path = self.directory / f"{name}.key"
        if not path.exists():
            write_private(path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
        return path

    def _vouches(self, certificate: x509.Certificate | None, hosts: set[str], before: timedelta) -> bool:
        """Whether the certificate is this authority's, has more than `before` left, and is for just these hosts."""
        if certificate is None or not _fresh(certificate, before) or _hosts(certificate) != hosts:
            return False
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except Exception:  # cryptography raises several kinds; each means "no"
            return False
        return True

    def kubeconfig(self, path: Path, certificate: Path, server: str, name: str, user: str) -> Path:
        """Write a kubeconfig with everything inline: usable wherever it is copied. One whose certificate is renewed in
        place belongs beside that."""

        def data(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        if certificate.suffix == ".pem":  # renewed in place: the kubeconfig says where it is
            presented = {"client-certificate": certificate.name, "client-key": certificate.name}
        else:
            key = certificate.with_suffix(".key")
            presented = {"client-certificate-data": data(certificate), "client-key-data": data(key)}
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
                {"name": user, "user": presented},
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
        text = yaml.safe_dump(config, sort_keys=False).encode()
        if not path.exists() or path.read_bytes() != text:
            write_private(path, text)
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
