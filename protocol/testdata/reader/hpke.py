"""HPKE (RFC 9180) in base mode with KEM 647A hexadecimal, HKDF-SHA256 and
AES-256-GCM: how vault keys are wrapped (SPEC.md 2.16).

The KEM is MLKEM768-X25519 of draft-ietf-hpke-pq, also known as X-Wing: its
private key is 32 bytes, from which SHAKE256 makes those of both parts.
"""

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import mlkem

_SUITE = b"HPKE" + bytes.fromhex("647a 0001 0002")
_KEM_LABEL = b"\\.//^\\"
ENC_SIZE = mlkem.CIPHERTEXT_SIZE + 32
PUBLIC_SIZE = mlkem.EK_SIZE + 32


def expand(key, info, size):
    """HKDF-Expand of RFC 5869 with SHA-256."""
    out, block = b"", b""
    while len(out) < size:
        block = hmac.digest(key, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:size]


def raw(public):
    """The 32 bytes of a public key."""
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _combine(pq, t, enc_t, public_t):
    return hashlib.sha3_256(pq + t + enc_t + public_t + _KEM_LABEL).digest()


class PrivateKey:
    """A private key of the KEM, and the bytes of its public key."""

    def __init__(self, secret):
        stream = hashlib.shake_256(secret).digest(64 + 32)
        ek, self._pq = mlkem.keys(stream[:64])
        self._t = X25519PrivateKey.from_private_bytes(stream[64:])
        self._public_t = raw(self._t.public_key())
        self.public = ek + self._public_t

    def open(self, info, sealed):
        """Open what was sealed to this key without aad; ValueError if it does not."""
        if len(sealed) < ENC_SIZE:
            raise ValueError("too short")
        pq, t = sealed[: mlkem.CIPHERTEXT_SIZE], sealed[mlkem.CIPHERTEXT_SIZE : ENC_SIZE]
        shared = _combine(
            mlkem.decapsulate(self._pq, pq), self._t.exchange(X25519PublicKey.from_public_bytes(t)), t, self._public_t
        )
        key, nonce = _schedule(shared, info)
        try:
            return AESGCM(key).decrypt(nonce, sealed[ENC_SIZE:], None)
        except InvalidTag:
            raise ValueError("sealed to another key or for another purpose, or altered") from None


def seal(public, info, plaintext, randomness):
    """Seal to a public key with 64 random bytes; ValueError if the key is none."""
    pq, t = public[: mlkem.EK_SIZE], public[mlkem.EK_SIZE :]
    enc_pq, shared_pq = mlkem.encapsulate(pq, randomness[:32])
    ephemeral = X25519PrivateKey.from_private_bytes(randomness[32:])
    enc_t = raw(ephemeral.public_key())
    shared_t = ephemeral.exchange(X25519PublicKey.from_public_bytes(t))
    key, nonce = _schedule(_combine(shared_pq, shared_t, enc_t, t), info)
    return enc_pq + enc_t + AESGCM(key).encrypt(nonce, plaintext, None)


def _schedule(shared, info):
    """KeySchedule of RFC 9180, section 5.1, mode 0: key and nonce of message 0."""

    def extract(salt, label, ikm):
        return hmac.digest(salt, b"HPKE-v1" + _SUITE + label + ikm, "sha256")

    def labeled_expand(prk, label, size):
        return expand(prk, size.to_bytes(2, "big") + b"HPKE-v1" + _SUITE + label + context, size)

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return labeled_expand(secret, b"key", 32), labeled_expand(secret, b"base_nonce", 12)
