"""Opening what a vault sealed: objects, records and content (SPEC.md 2.2 to 2.8)."""

import hashlib
import hmac
import io
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import blake3
import cbor
from errors import Critical, Malformed, NoKey, Unopened, WrongContent
from hpke import expand

try:
    import zstandard
except ImportError:  # said when the first compressed object is met
    zstandard = None

MAX_PLAINTEXT, MAX_OBJECT, MAX_REFS, MAX_LEVEL = 4_194_304, 4_358_261, 1024, 4
CHUNK, LIST, RECORD, NOTE = 1, 2, 3, 4
PUT, DELETE, OUT_OF_SCOPE = 1, 2, 3
FILE, FOLDER, SYMLINK = 1, 2, 3
_FORBIDDEN_REFS = (CHUNK, NOTE)
_OPERATIONS = (1, 2, 3, 16, 17)


@dataclass
class Header:
    """The clear part of an object; device to op are None but for a record."""

    type: int
    epoch: int
    refs: list
    size: int
    device: bytes = None
    seq: int = None
    path: bytes = None
    parent: bytes = None
    op: int = None


def parse_header(obj):
    if not 70 <= len(obj) <= MAX_OBJECT or obj[:5] != b"bkst\1":
        raise Malformed("not an object")
    kind, n, epoch = struct.unpack_from("<BHI", obj, 5)
    size = 12 + 32 * n + (57 if kind == RECORD else 0)
    if not CHUNK <= kind <= NOTE or n > MAX_REFS or n and kind in _FORBIDDEN_REFS or len(obj) < size + 57:
        raise Malformed(f"an object of type {kind} with {n} refs in {len(obj)} bytes")
    header = Header(kind, epoch, [obj[12 + 32 * i : 44 + 32 * i] for i in range(n)], size)
    if kind == RECORD:
        fields = struct.unpack_from("<16sQ16s16sB", obj, size - 57)
        header.device, header.seq, header.path, header.parent, header.op = fields
        if header.op not in _OPERATIONS:
            raise Malformed(f"a record with operation {header.op}")
    return header


class Keyring:
    """The keys of a vault: epoch to the vault keys it may have, the first among
    them. The first of several is the most likely."""

    def __init__(self, vault, keys):
        self.vault, self.keys = vault, keys
        self._path, self._hash = (derive(keys[1][0], vault, 1, label) for label in (b"path", b"plaintext hash"))

    def path_id(self, device, name):
        return hmac.digest(self._path, device + name, "sha256")[:16]

    def hash(self, plaintext):
        return blake3.digest(plaintext, self._hash)[:16]

    def open(self, obj):
        """Header and plaintext of an object (2.4)."""
        header = parse_header(obj)
        if header.epoch not in self.keys:
            raise NoKey(f"epoch {header.epoch}")
        for key in self.keys[header.epoch]:
            enc = self._encoding(key, obj, header)
            if enc is not None:
                return header, _decode(enc)
        raise Unopened("altered, or sealed with another key")

    def _encoding(self, key, obj, header):
        """The encoding in an object, or None if the key does not open it."""
        h, epoch = header.size, header.epoch
        siv, aad = obj[h : h + 32], self.vault + obj[:h]
        secret = expand(derive(key, self.vault, epoch, b"object encryption"), b"backstay/1 object" + siv, 44)
        try:
            enc = AESGCM(secret[:32]).decrypt(secret[32:], obj[h + 32 :], aad)
        except InvalidTag:
            return None
        mac = hmac.new(derive(key, self.vault, epoch, b"object siv"), struct.pack("<Q", len(aad)) + aad, "sha256")
        mac.update(enc)
        return enc if hmac.compare_digest(siv, mac.digest()) else None


def derive(key, vault, epoch, label):
    return expand(key, vault + struct.pack("<I", epoch) + b"backstay/1 " + label, 32)


def padme(n):
    e = n.bit_length() - 1
    low = e - e.bit_length()
    return -(-n >> low) << low


def _decode(enc):
    """The plaintext of an encoding (2.3)."""
    codec, length, p = struct.unpack_from("<BII", enc)
    payload, padding = enc[9 : 9 + p], enc[9 + p :]
    if codec > 1 or length > MAX_PLAINTEXT or p > length or len(enc) != padme(9 + p) or any(padding):
        raise Malformed("encoding")
    if codec == 0:
        if p != length:
            raise Malformed("encoding: lengths differ")
        return payload
    if padme(9 + p) >= padme(9 + length):
        raise Malformed("encoding: compressed for nothing")
    return _decompress(payload, length)


def _decompress(payload, length):
    if zstandard is None:
        raise RuntimeError("this vault holds compressed objects: install python3-zstandard")
    if _frame_size(payload) != len(payload):
        raise Malformed("encoding: not one zstd frame")
    try:
        decompressor = zstandard.ZstdDecompressor(max_window_size=4 << 20)
        plaintext = decompressor.stream_reader(io.BytesIO(payload)).read(length + 1)
    except zstandard.ZstdError as err:
        raise Malformed(f"encoding: {err}") from None
    if len(plaintext) != length:
        raise Malformed("encoding: the frame has another length than stated")
    return plaintext


def _frame_size(data):
    """Where the zstd frame at the start of data ends (RFC 8878, section 3.1.1);
    None if there is none without a dictionary."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        return None
    descriptor = data[4]
    single, checksum, dictionary = descriptor >> 5 & 1, descriptor >> 2 & 1, descriptor & 3
    if dictionary:
        return None
    at = 5 + (0 if single else 1) + (single, 2, 4, 8)[descriptor >> 6]
    while at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            return at + 4 * checksum
    return None


# Chunk lists and content.


@dataclass
class Content:
    """The bytes of a file without its holes: inline, or as (id, size, hash) of
    chunks (level 0) or lists."""

    size: int
    inline: bytes = None
    level: int = 0
    entries: tuple = ()
    sum: bytes = None


def decode_list(data, refs, size):
    """A chunk list (2.7) for size bytes of content."""
    if not 1 <= len(refs) <= MAX_REFS or len(data) != 1 + 24 * len(refs) or data[0] > MAX_LEVEL:
        raise Malformed(f"a list of {len(data)} bytes for {len(refs)} refs")
    rows = struct.iter_unpack("<Q16s", data[1:])
    entries = tuple((ref, length, digest) for ref, (length, digest) in zip(refs, rows))
    sizes = [e[1] for e in entries]
    if min(sizes) < 1 or data[0] == 0 and max(sizes) > MAX_PLAINTEXT or sum(sizes) != size or size >= 1 << 63:
        raise Malformed("the sizes of a list do not fit")
    return Content(size, None, data[0], entries)


def read_content(content, keys, get):
    """Yield the bytes of content, checked as 2.6 demands; get gives an object's
    bytes by id."""
    if content.inline is not None:
        yield content.inline
        return
    whole = hashlib.sha256()
    for piece in _pieces(content, keys, get):
        whole.update(piece)
        yield piece
    if content.sum is not None and whole.digest() != content.sum:
        raise WrongContent("SHA-256 of the whole content differs")


def _pieces(content, keys, get):
    for ref, size, digest in content.entries:
        header, plaintext = keys.open(get(ref))
        if header.type != (CHUNK if content.level == 0 else LIST) or keys.hash(plaintext) != digest:
            raise WrongContent(f"object {ref.hex()} is not the one listed")
        if content.level == 0:
            if len(plaintext) != size:
                raise WrongContent(f"chunk {ref.hex()} has another size")
            yield plaintext
            continue
        below = decode_list(plaintext, header.refs, size)
        if below.level != content.level - 1:
            raise WrongContent(f"list {ref.hex()} is of another level")
        yield from _pieces(below, keys, get)


# Records.


def uint(value, most=(1 << 64) - 1):
    return type(value) is int and 0 <= value <= most


def u32(value):
    return uint(value, (1 << 32) - 1)


def octets(value, least=0, most=None):
    return type(value) is bytes and least <= len(value) <= (len(value) if most is None else most)


def array(value, *checks):
    return type(value) is list and len(value) == len(checks) and all(c(v) for c, v in zip(checks, value))


def _time(value):
    zero = -62135596800  # 0001-01-01T00:00:00Z
    return array(
        value, lambda s: type(s) is int and -(1 << 63) <= s < 1 << 63, lambda n: uint(n, 999_999_999)
    ) and value != [zero, 0]


def _xattrs(value):
    if type(value) is not list or not value or not all(array(x, octets, octets) for x in value):
        return False
    names = [x[0] for x in value]
    return names == sorted(set(names))


def _holes(value):
    if type(value) is not list or not value or len(value) % 2 or not all(uint(v) for v in value):
        return False
    end = -1  # the first may begin at 0, no other where the one before ends
    for offset, length in zip(value[::2], value[1::2]):
        if offset <= end or length < 1:
            return False
        end = offset + length
    return True


# What a field of a record must be (2.8).
_FIELDS = {
    1: lambda v: octets(v, 1),
    2: lambda v: uint(v, 8) and v > 0,
    3: uint,
    4: lambda v: octets(v, 0, 4096),
    5: octets,
    6: _time,
    7: lambda v: uint(v, 0o7777),
    8: _time,
    9: lambda v: array(v, u32, u32, octets, octets),
    10: _xattrs,
    11: u32,
    12: octets,
    13: lambda v: octets(v, 1),
    14: lambda v: octets(v, 16, 16),
    15: _holes,
    16: lambda v: v is True,
    17: lambda v: octets(v, 32, 32),
    18: lambda v: array(v, u32, u32),
    32: u32,
}


@dataclass
class Record:
    """A record: its fields by their keys (2.8), and content for a file."""

    fields: dict
    content: Content = None

    @property
    def name(self):
        return self.fields.get(1)

    @property
    def type(self):
        return self.fields.get(2)


def decode_record(plaintext, header):
    fields = cbor.decode(plaintext)
    if type(fields) is not dict:
        raise Malformed("record: not a map")
    for key, value in fields.items():
        if key < 0:
            raise Critical(f"field {key}: a newer version wrote this record")
        if key in _FIELDS and not _FIELDS[key](value):
            raise Malformed(f"record: field {key}")
    known, kind = fields.keys() & _FIELDS.keys(), fields.get(2)
    of_files = known & {3, 4, 5, 14, 15, 16, 17, 32}
    if (
        header.op != PUT
        and known - {1}
        or kind != FILE
        and of_files
        or kind == FILE
        and (3 not in known or (4 in known) == (5 in known))
        or (13 in known) != (kind == SYMLINK)
        or 18 in known
        and kind not in (6, 7)
    ):
        raise Malformed(f"record: fields {sorted(known)} do not fit operation {header.op}, type {kind}")
    wanted = {PUT: None, DELETE: 0}.get(header.op, 1)
    if wanted is not None and len(header.refs) != wanted or header.op == PUT and 5 not in known and header.refs:
        raise Malformed(f"record: {len(header.refs)} refs for operation {header.op}")
    return Record(fields, _content(fields, header.refs) if kind == FILE else None)


def _content(fields, refs):
    holes = fields.get(15, [])
    if holes and holes[-2] + holes[-1] > fields[3]:
        raise Malformed("record: a hole beyond the end")
    size = fields[3] - sum(holes[1::2])
    if 4 in fields:
        content = Content(size, inline=fields[4])
        if len(content.inline) != size:
            raise Malformed("record: inline content of another size")
    else:
        content = decode_list(fields[5], refs, size)
        content.sum = fields.get(17)
    if (content.sum is not None) != (len(content.entries) > 1) or 4 in fields and 17 in fields:
        raise Malformed("record: SHA-256 present or absent against the rule")
    return content
