"""The server's store on a disk, from its packs alone (SPEC.md 3.1).

Nothing is written, and nothing is trusted: what a pack says is bytes that the
rest of the reader verifies. Entries are applied as a server's start does it,
except that those of the last group are not held against the rules of writing.
"""

import hashlib
import mmap
import os
import re
import struct
from dataclasses import dataclass, field

from errors import Malformed, Missing, Refused

_HEADER, _ENTRY = 32, 68
_OBJECT, _COMMIT, _ITEM, _DELETION = 1, 2, 3, 4
_GROUP, _PART = 1, 2
_MAX_BODY = 4_358_261
MEMBER = 7  # kind of an item (3.3)


def _castagnoli():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC = _castagnoli()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


@dataclass
class Entry:
    """The header of an entry; its body is at off."""

    kind: int
    flags: int
    vault: bytes
    sum: bytes
    off: int
    length: int

    @property
    def end(self):
        return self.off + self.length


@dataclass
class Commit:
    """A commit as the server keeps it. records are (record id, path id, parent
    id, operation); raw is the signed commit of 2.17."""

    device: bytes
    seq: int
    after: int
    time: int
    records: list
    stamp: bytes
    raw: bytes


def _commit(body):
    size = struct.calcsize("<16sQQqIH")
    if len(body) < size:
        raise Malformed("commit entry")
    device, seq, after, time, count, stamp = struct.unpack_from("<16sQQqIH", body)
    rest = size + 65 * count
    raw = len(body) - rest - stamp
    if count > 16384 or stamp > 256 or not 0 <= raw <= 1 << 20 or time < 0 or not after < seq < (1 << 63) - 1:
        raise Malformed("commit entry")
    records = list(struct.iter_unpack("<32s16s16sB", body[size:rest]))
    return Commit(device, seq, after, time, records, body[rest : rest + stamp], body[rest + stamp :])


@dataclass
class Store:
    """What the packs of a folder hold. damage says what was lost of them, notes
    what was passed over without loss."""

    folder: str
    objects: dict = field(default_factory=dict)  # (vault, id) -> (pack, offset, length)
    deleted: set = field(default_factory=set)  # (vault, id), whether or not stored again
    commits: dict = field(default_factory=dict)  # vault -> device -> [Commit], ascending
    items: dict = field(default_factory=dict)  # (kind, key) -> (revision, body)
    damage: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def __post_init__(self):
        self._newest = -1  # stamp time
        self._open = None, None
        names = os.listdir(os.path.join(self.folder, "packs"))
        numbers = sorted(int(n[:8]) for n in names if re.fullmatch(r"\d{8}\.pack", n) and int(n[:8]) > 0)
        if not numbers:
            raise FileNotFoundError(f"{self.folder}: no packs")
        for number in numbers:
            self._load(number, number == numbers[-1])

    def _name(self, number):
        return os.path.join(self.folder, "packs", f"{number:08}.pack")

    def get(self, vault, object_id):
        """The bytes of an object; Missing, or Malformed if they are others."""
        place = self.objects.get((vault, object_id))
        if place is None:
            raise Missing(
                f"object {object_id.hex()}" + (", deleted by retention" if self.gone(vault, object_id) else "")
            )
        number, off, length = place
        if self._open[0] != number:
            self.close()
            self._open = number, open(self._name(number), "rb", buffering=0)
        data = os.pread(self._open[1].fileno(), length, off)
        if hashlib.sha256(data).digest() != object_id:
            raise Malformed(f"object {object_id.hex()} is damaged")
        return data

    def gone(self, vault, object_id):
        """The server deleted the object, as retention wants it."""
        return (vault, object_id) in self.deleted and (vault, object_id) not in self.objects

    def close(self):
        if self._open[1]:
            self._open[1].close()
        self._open = None, None

    def _load(self, number, last):
        with open(self._name(number), "rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size == 0:
                return self._lost(number, 0, 0, last)
            with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                mark = _mark(data, number)
                if mark is None:
                    return self._lost(number, 0, size, last and size <= _HEADER)
                self._apply_all(number, _Pack(data, mark), last)

    def _lost(self, number, off, length, harmless):
        (self.notes if harmless else self.damage).append(f"pack {number}: {length} bytes at {off} are not whole")

    def _apply_all(self, number, pack, last):
        off, size = _HEADER, len(pack.data)
        # What stands before the last group of the last pack was durable: a
        # break in it is damage, and what follows is believed.
        limit = pack.last_group() if last else size
        while off < limit:
            entry = pack.entry(off)
            if entry is None:
                after = pack.find(off + 1)
                self._lost(number, off, after - off, False)
                off = after
                continue
            self._apply(number, pack, entry)
            off = entry.end
        # In the last group a break is where a crash struck: entries count up to
        # it, those tied together all or none.
        while off < size:
            run, at = [], off
            while not run or run[-1].flags & _PART:
                entry = pack.entry(at)
                if entry is None:
                    return self._lost(number, off, size - off, pack.find(at + 1) == size)
                run.append(entry)
                at = entry.end
            for entry in run:
                self._apply(number, pack, entry)
            off = at

    def _apply(self, number, pack, entry):
        body = None if entry.kind == _OBJECT else pack.data[entry.off : entry.end]
        try:
            if entry.kind == _OBJECT:
                self.objects.setdefault((entry.vault, entry.sum), (number, entry.off, entry.length))
            elif entry.kind == _COMMIT:
                self._append(entry.vault, _commit(body))
            elif entry.kind == _ITEM:
                self._set(body)
            else:
                self._delete(entry.vault, body)
        except Refused as err:
            self.damage.append(f"pack {number}: entry at {entry.off - _ENTRY}: {err}")

    def _append(self, vault, commit):
        log = self.commits.setdefault(vault, {}).setdefault(commit.device, [])
        if (not log or commit.seq > log[-1].seq) and commit.time > self._newest:
            log.append(commit)
            self._newest = commit.time

    def _set(self, body):
        if not 41 <= len(body) <= 41 + (1 << 20):
            raise Malformed("item entry")
        name, revision = (body[0], body[1:33]), int.from_bytes(body[33:41], "little")
        if revision > self.items.get(name, (0,))[0]:
            self.items[name] = revision, body[41:]

    def _delete(self, vault, body):
        if len(body) % 32 or len(body) > 32 * 65536:
            raise Malformed("deletion entry")
        for i in range(0, len(body), 32):
            self.objects.pop((vault, body[i : i + 32]), None)
            self.deleted.add((vault, body[i : i + 32]))


def _mark(data, number):
    """The mark of a pack, None if nothing in the pack can be read."""
    head = data[:_HEADER]
    if len(head) == _HEADER and head[:8] == b"BKSTPACK" and crc32c(head[:28]) == int.from_bytes(head[28:], "little"):
        if int.from_bytes(head[8:12], "little") > 1:
            raise Malformed(f"pack {number} is of a newer format")
        if int.from_bytes(head[8:16], "little") == 1 | number << 32 and head[24:28] == bytes(4):
            return head[16:24]
    mark = data[_HEADER : _HEADER + 8]
    return mark if _Pack(data, mark).header(_HEADER) else None


@dataclass
class _Pack:
    data: mmap.mmap
    mark: bytes

    def header(self, off):
        """The intact entry header at off, or None."""
        head = self.data[off : off + _ENTRY]
        if len(head) < _ENTRY or head[:8] != self.mark or crc32c(head[:64]) != int.from_bytes(head[64:], "little"):
            return None
        kind, flags, zero, length, vault, digest = struct.unpack_from("<BBHI16s32s", head, 8)
        if not 1 <= kind <= 4 or flags > 3 or zero or length > _MAX_BODY:
            return None
        return Entry(kind, flags, vault, digest, off + _ENTRY, length)

    def entry(self, off):
        """The whole entry at off, or None."""
        entry = self.header(off)
        if entry is None or entry.end > len(self.data):
            return None
        return entry if hashlib.sha256(self.data[entry.off : entry.end]).digest() == entry.sum else None

    def find(self, off):
        """Where the next intact entry header stands, or the end."""
        while (off := self.data.find(self.mark, off)) >= 0:
            if self.header(off):
                return off
            off += 1
        return len(self.data)

    def last_group(self):
        last = off = _HEADER
        while off < len(self.data):
            entry = self.header(off)
            if entry is None:
                off = self.find(off + 1)
                continue
            if entry.flags & _GROUP:
                last = off
            off = entry.end
        return last
