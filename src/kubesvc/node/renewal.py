"""The node's own client certificate, renewed before it expires: a CertificateSigningRequest, as the kubelet makes them.

A random point between 70 % and 90 % of its life (so that nodes don't ask all at once) a new key and a request for it
are made; the cluster approves what a node asks for itself, and the answer replaces the file that the session reads.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubesvc.api.certificates import NODE_CLIENT, CertificateSigningRequest
from kubesvc.api.errors import ApiError
from kubesvc.api.registry import CERTIFICATE_SIGNING_REQUEST
from kubesvc.client.informer import Informer
from kubesvc.client.pemfiles import write_private
from kubesvc.client.session import Session, Unreachable

log = logging.getLogger(__name__)

_KIND = CERTIFICATE_SIGNING_REQUEST
_EARLIEST, _LATEST = 0.7, 0.9  # of its life
_AGAIN = 5.0  # seconds until a renewal that failed is tried again; doubles up to _LONGEST
_LONGEST = 300.0
_PATIENCE = 900.0  # seconds that a request waits for its certificate


def due(certificate: x509.Certificate, share: float) -> datetime:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * share


async def keep(session: Session, node: str, identity: Path) -> None:
    """Renew until cancelled. `identity` is a PEM file with the certificate and its key."""
    delay = _AGAIN
    while True:
        try:
            certificate = x509.load_pem_x509_certificate(identity.read_bytes())
            when = due(certificate, random.uniform(_EARLIEST, _LATEST))
            await asyncio.sleep(max(0.0, (when - datetime.now(UTC)).total_seconds()))
            await renew(session, node, identity)
            delay = _AGAIN
        except (ApiError, Unreachable, OSError, ValueError, TimeoutError) as error:
            log.warning("node %s: its certificate can't be renewed: %s", node, error or type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST)


async def renew(session: Session, node: str, identity: Path) -> None:
    """Raises ApiError, Unreachable, TimeoutError, and ValueError where the request was denied or has failed."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = ((NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"system:node:{node}"))
    subject = x509.Name([x509.NameAttribute(of, value) for of, value in names])
    asked = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    pem = asked.public_bytes(serialization.Encoding.PEM)
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": NODE_CLIENT,
        "usages": ["digital signature", "client auth"],
    }
    made = await session.create(_KIND, {"metadata": {"generateName": "csr-"}, "spec": spec})
    certificate = await _signed(session, made["metadata"]["name"])
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(identity, certificate + private)
    log.info("node %s: its certificate was renewed", node)


async def _signed(session: Session, name: str) -> bytes:
    """The certificate, once it is there."""
    requests = Informer(session, _KIND, CertificateSigningRequest, fields=f"metadata.name={name}")
    following = asyncio.ensure_future(requests.run())

    def decided() -> bool:
        found = requests.get("", name)
        return found is not None and bool(
            found.status.certificate or found.condition("Denied") or found.condition("Failed")
        )

    try:
        async with asyncio.timeout(_PATIENCE):
            await requests.until(decided)
    finally:
        following.cancel()
    found = requests.get("", name)
    if found is None or not found.status.certificate:
        conditions = found.status.conditions if found is not None else []
        raise ValueError(f"request {name}: {'; '.join(f'{c.type}: {c.message}' for c in conditions)}")
    return found.status.certificate
