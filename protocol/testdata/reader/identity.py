"""Identities, the recovery phrase and the kit (SPEC.md 2.14, 2.15)."""

import hashlib
import os
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

import hpke

PUBLIC_SIZE = 64 + hpke.PUBLIC_SIZE
_SPKI = bytes.fromhex("302a300506032b6570032100")  # DER before an Ed25519 public key


class Identity:
    """The keys of a root or device, derived from its seed."""

    def __init__(self, seed, role):
        def secret(use):
            return hpke.expand(seed, f"backstay/1 {role} {use}".encode(), 32)

        self.tls, self.sign = (Ed25519PrivateKey.from_private_bytes(secret(use)) for use in ("tls", "sign"))
        self.hpke = hpke.PrivateKey(secret("hpke"))
        self.public = hpke.raw(self.tls.public_key()) + hpke.raw(self.sign.public_key()) + self.hpke.public
        self.id = identify(self.public)


def identify(public):
    """The id of a public identity."""
    return hashlib.sha256(b"backstay/1 identity" + public).digest()[:16]


def sign_key(public):
    return public[32:64]


def usable(public):
    """Whether a key can be wrapped to a public identity."""
    try:
        hpke.seal(public[64:], b"", b"", bytes(64))
    except ValueError:
        return False
    return True


def verify(key, signature, message):
    """Whether an Ed25519 signature is right."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def pin(key):
    """What a kit pins of a server with this Ed25519 key (4.2)."""
    return hashlib.sha256(_SPKI + key).digest()


def word_list():
    """The 2,048 words, from beside this file or from the repository."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name in ("words.txt", os.path.join("..", "..", "vault", "words.txt")):
        try:
            with open(os.path.join(here, name), encoding="ascii") as f:
                return f.read().split()
        except FileNotFoundError:
            continue
    raise FileNotFoundError("words.txt, the English list of BIP-39, must lie beside the reader")


def seed_of(phrase):
    """The seed that 24 words stand for; ValueError says what is wrong with them."""
    known, given, bits = word_list(), phrase.lower().split(), 0
    for position, word in enumerate(given, 1):
        matches = [i for i, w in enumerate(known) if w == word or len(word) >= 4 and w.startswith(word)]
        if len(matches) != 1:
            raise ValueError(f"word {position} of the phrase, {word[:24]!r}, is not in the list")
        bits = bits << 11 | matches[0]
    if len(given) != 24:
        raise ValueError(f"the phrase has {len(given)} words, not 24")
    data = bits.to_bytes(33, "big")
    if hashlib.sha256(data[:32]).digest()[0] != data[32]:
        raise ValueError("the checksum of the phrase is wrong: a word is not the right one, or not in its place")
    return data[:32]


@dataclass
class Kit:
    seed: bytes
    pin: bytes = None
    vault: bytes = None


def read_kit(text):
    """A kit, or nothing but the words; ValueError if it is neither."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not any(": " in line for line in lines):
        return Kit(seed_of(" ".join(lines)))
    values = {}
    for line in lines:
        key, colon, value = line.partition(": ")
        if not colon:
            raise ValueError("a line of the kit is not of the form key: value")
        if key in values and key != "server":
            raise ValueError(f"the kit has a second {key}")
        values[key] = value.strip()
    if "phrase" not in values:
        raise ValueError("the kit has no phrase")
    for key, digits in (("pin", 64), ("vault", 32)):
        if not re.fullmatch(f"([0-9A-Fa-f]{{{digits}}})?", values.get(key, "")):
            raise ValueError(f"{key} of the kit is not {digits} hexadecimal digits")
    pin_hex, vault_hex = values.get("pin"), values.get("vault")
    return Kit(seed_of(values["phrase"]), pin_hex and bytes.fromhex(pin_hex), vault_hex and bytes.fromhex(vault_hex))
