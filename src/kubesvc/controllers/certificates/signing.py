"""A certificate for an approved request, with the cluster's own authority: its subject, its names, its usages, and no
more. It lives as long as asked for, and never longer than the cluster's certificates or the authority itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from kubesvc.api.certificates import CertificateSigningRequest

BACKDATE = timedelta(minutes=5)
SHORTEST = timedelta(minutes=10)  # that can be asked for
_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
}
_EXTENDED = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}


def lifetime(asked: int | None, longest: timedelta) -> timedelta:
    """`asked` in seconds."""
    return longest if asked is None else min(max(timedelta(seconds=asked), SHORTEST), longest)


def backdate(life: timedelta) -> timedelta:
    """How far before now a certificate begins, for clocks that are behind: less for one that is short-lived."""
    return min(BACKDATE, life / 10)


class Signer:
    """The authority of DIRECTORY/ca.crt and ca.key, read when it is needed: it may be replaced while we run."""

    def __init__(self, directory: Path, longest: timedelta) -> None:
        self._directory, self._longest = directory, longest

    def sign(self, request: CertificateSigningRequest, now: datetime) -> bytes:
        """PEM. Raises OSError, ValueError where the authority can't be used."""
        authority = x509.load_pem_x509_certificate((self._directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((self._directory / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"{self._directory / 'ca.key'}: expected a key of an elliptic curve or RSA")
        asked = x509.load_pem_x509_csr(request.spec.request)
        life = lifetime(request.spec.expiration_seconds, self._longest)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = (
            x509.CertificateBuilder(authority.subject, asked.subject, asked.public_key(), x509.random_serial_number())
            .not_valid_before(now - backdate(life))
            .not_valid_after(min(now + life, authority.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(own, critical=False)
        )
        usages = request.spec.usages
        if named := {_KEY_USAGES[usage] for usage in usages if usage in _KEY_USAGES}:
            builder = builder.add_extension(_usage(named), critical=True)
        if extended := [_EXTENDED[usage] for usage in usages if usage in _EXTENDED]:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        try:
            names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(names.value, critical=False)
        except x509.ExtensionNotFound:
            pass
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(named: set[str]) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: name in named for name in every})
