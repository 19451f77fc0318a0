"""The key a server signs ServiceAccount tokens with: ECDSA on P-256 (JWS algorithm ES256, RFC 7518).

Its id is the hash of the public key, as upstream's, so that a token says which key to look for.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from kubesvc.api.meta import JSON

ALGORITHM = "ES256"
_HALF = 32  # bytes of each of a signature's two numbers
_HASHED = ec.ECDSA(hashes.SHA256())


class BadKey(Exception):
    """The file can't be used; the message names it and says what was expected."""


def text(data: bytes) -> str:
    """Base64 for URLs without padding, as all of JOSE has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKey:
    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._public = key.public_key()
        spki = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.id = text(hashlib.sha256(spki).digest())

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """From a PEM file. Raises BadKey."""
        expected = "expected a private key on P-256 in PEM, as `kubesvc up` makes it"
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise BadKey(f"{path}, the key of ServiceAccount tokens, can't be read: {error}; {expected}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise BadKey(f"{path}, the key of ServiceAccount tokens, is of another type; {expected}")
        return cls(key)

    def sign(self, data: bytes) -> bytes:
        r, s = utils.decode_dss_signature(self._key.sign(data, _HASHED))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")

    def verify(self, data: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * _HALF:
            return False
        numbers = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
        try:
            self._public.verify(utils.encode_dss_signature(*numbers), data, _HASHED)
        except InvalidSignature:
            return False
        return True

    @property
    def jwk(self) -> JSON:
        """The public half (RFC 7517)."""
        numbers = self._public.public_numbers()
        return {
            "use": "sig",
            "kty": "EC",
            "kid": self.id,
            "crv": "P-256",
            "alg": ALGORITHM,
            "x": text(numbers.x.to_bytes(_HALF, "big")),
            "y": text(numbers.y.to_bytes(_HALF, "big")),
        }
