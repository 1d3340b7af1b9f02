"""A writer of small vaults and stores, for the tests of the reader. It makes what
SPEC.md states and, where a test asks for it, what SPEC.md forbids."""

import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import history
import hpke
import identity
import store
import vault


def cbor(value):
    """Deterministic CBOR of int, bytes, str, list, dict and the constants."""
    constants = {False: 0xF4, True: 0xF5, None: 0xF6}
    if value is None or type(value) is bool:
        return bytes([constants[value]])

    def head(major, n):
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if n < 24:
                return bytes([major << 5 | n])
            if n < 1 << 8 * size:
                return bytes([major << 5 | info]) + n.to_bytes(size, "big")
        raise OverflowError(n)

    if type(value) is int:
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if type(value) is bytes:
        return head(2, len(value)) + value
    if type(value) is str:
        return head(3, len(value.encode())) + value.encode()
    if type(value) is list:
        return head(4, len(value)) + b"".join(map(cbor, value))
    pairs = sorted((cbor(k), cbor(v)) for k, v in value.items() if v is not None)  # None: left out
    return head(5, len(pairs)) + b"".join(k + v for k, v in pairs)


def stream(n, seed=0):
    """n bytes that do not compress, the same every time."""
    return hashlib.shake_128(seed.to_bytes(8, "little")).digest(n)


class Server:
    """A store on a disk, written entry by entry, and the key that stamps."""

    def __init__(self, folder, start=1_800_000_000 * 10**9):
        self.folder, self.clock = folder, start
        self.key = Ed25519PrivateKey.from_private_bytes(stream(32, 99))
        self.public = hpke.raw(self.key.public_key())
        os.makedirs(os.path.join(folder, "packs"))
        self.number = 0
        self.pack()

    def name(self):
        return os.path.join(self.folder, "packs", f"{self.number:08}.pack")

    def pack(self):
        """Begin a new pack."""
        self.number += 1
        self.mark = stream(8, 1000 + self.number)
        head = b"BKSTPACK" + struct.pack("<II8sI", 1, self.number, self.mark, 0)
        with open(self.name(), "wb") as f:
            f.write(head + struct.pack("<I", store.crc32c(head)))

    def write(self, kind, vault_id, body, flags=store._GROUP):
        head = self.mark + struct.pack(
            "<BBHI16s32s", kind, flags, 0, len(body), vault_id, hashlib.sha256(body).digest()
        )
        with open(self.name(), "ab") as f:
            f.write(head + struct.pack("<I", store.crc32c(head)) + body)

    def objects(self, vault_id, objects, flags=store._GROUP):
        for i, obj in enumerate(objects):
            self.write(store._OBJECT, vault_id, obj, flags | (store._GROUP if i == 0 else 0))

    def delete(self, vault_id, ids):
        self.write(store._DELETION, vault_id, b"".join(ids))

    def item(self, kind, key, body, revision=1):
        self.write(store._ITEM, bytes(16), bytes([kind]) + key + struct.pack("<Q", revision) + body)

    def member(self, vault_id, number, entry):
        self.item(store.MEMBER, vault_id + number.to_bytes(16, "big"), entry)

    def stamp(self, vault_id, commit_hash, time=None):
        time = struct.pack("<Q", self.clock if time is None else time)
        return time + self.public + self.key.sign(b"backstay/1 stamp" + vault_id + commit_hash + time)

    def commit(self, vault_id, device, seq, after, raw, records, objects, stamp=None, stamp_time=None):
        """Store a commit with the objects it carries; return its stamp."""
        self.clock += 3600 * 10**9
        stamp = stamp or self.stamp(vault_id, hashlib.sha256(raw).digest(), stamp_time)
        body = struct.pack("<16sQQqIH", device, seq, after, self.clock, len(records), len(stamp))
        body += b"".join(struct.pack("<32s16s16sB", *r) for r in records) + stamp + raw
        self.objects(vault_id, objects, store._PART)
        self.write(store._COMMIT, vault_id, body, 0 if objects else store._GROUP)
        return stamp


class Vault:
    """A vault with its root, its membership log and the newest keys."""

    def __init__(self, server, seed=stream(32, 1), vault_id=stream(16, 2)):
        self.server, self.id = server, vault_id
        self.root = identity.Identity(seed, "root")
        self.seed = seed
        self.entries, self.live, self.keys, self.epoch = [], {}, {1: stream(32, 501)}, 1
        self.add_entry(self.root, {1: 1, 6: self.root.public, 13: vault_id}, [self.root])

    def add_entry(self, signer, body, recipients, store_it=True, handed_down=(), **options):
        """Sign and append an entry; body states what is particular to its kind."""
        body = {2: len(self.entries), 4: signer.id, 5: 7, 9: self.epoch} | body
        if self.entries:
            body.setdefault(3, hashlib.sha256(self.entries[-1]).digest())
        key = options.get("key", self.keys[body[9]])
        info = lambda r: b"backstay/1 wrap" + self.id + struct.pack("<I", body[9]) + r.id
        wrap = lambda r: hpke.seal(r.public[64:], info(r), key, stream(64, body[9]))
        body.setdefault(10, [[r.id, wrap(r)] for r in sorted(recipients, key=lambda r: r.id)])
        if handed_down:
            sealer = AESGCM(vault.derive(self.keys[body[9]], self.id, body[9], b"previous key"))
            aad = self.id + struct.pack("<I", body[9])
            sealed = [sealer.encrypt(bytes([i]) + bytes(11), self.keys[e], aad) for i, e in enumerate(handed_down)]
            body.setdefault(11, b"".join(sealed))
        raw = cbor(body)
        entry = signer.sign.sign(b"backstay/1 member entry" + self.id + raw) + raw
        if store_it:
            self.server.member(self.id, len(self.entries), entry)
        self.entries.append(entry)
        return entry

    def add(self, device, signer=None):
        self.live[device.id] = device
        return self.add_entry(signer or self.root, {1: 2, 6: device.public, 7: device.name}, [device])

    def begin_epoch(self, body, signer=None, back_to=(), **options):
        self.epoch += 1
        self.keys[self.epoch] = stream(32, 500 + self.epoch)
        recipients = [self.root, *self.live.values()]
        return self.add_entry(signer or self.root, body, recipients, handed_down=[self.epoch - 1, *back_to], **options)

    def revoke(self, device, signer=None):
        del self.live[device.id]
        return self.begin_epoch({1: 3, 8: device.id}, signer)

    def void(self, keep, live, epoch):
        self.live = {d.id: d for d in live}
        return self.begin_epoch({1: 5, 12: hashlib.sha256(keep).digest()}, back_to=[epoch])

    def head(self):
        return hashlib.sha256(self.entries[-1]).digest()

    def ring(self):
        return vault.Keyring(self.id, {e: [k] for e, k in self.keys.items()})

    def seal(self, kind, plaintext, refs=(), fields=b"", epoch=None, codec=0, payload=None):
        epoch = epoch or self.epoch
        payload = plaintext if payload is None else payload
        enc = struct.pack("<BII", codec, len(plaintext), len(payload)) + payload
        enc += bytes(vault.padme(len(enc)) - len(enc))
        header = b"bkst" + struct.pack("<BBHI", 1, kind, len(refs), epoch) + b"".join(refs) + fields
        aad, key = self.id + header, self.keys[epoch]
        message = struct.pack("<Q", len(aad)) + aad + enc
        siv = hmac.digest(vault.derive(key, self.id, epoch, b"object siv"), message, "sha256")
        secret = hpke.expand(vault.derive(key, self.id, epoch, b"object encryption"), b"backstay/1 object" + siv, 44)
        return header + siv + AESGCM(secret[:32]).encrypt(secret[32:], enc, aad)


class Device(identity.Identity):
    """A device: its commits, and what it has put."""

    def __init__(self, owner, name, seed):
        super().__init__(stream(32, seed), "device")
        self.vault, self.name = owner, name
        self.seq, self.hash, self.stamp, self.state = 0, None, None, {}

    def path_id(self, path):
        return self.vault.ring().path_id(self.id, path)

    def record(self, path, op=1, fields=None, refs=(), seq=None):
        """A sealed record, its row, and the id."""
        fields = fields if fields == [] else {1: path} | (fields or {})
        parent = self.path_id(os.path.dirname(path))
        clear = struct.pack("<16sQ16s16sB", self.id, seq or self.seq + 1, self.path_id(path), parent, op)
        obj = self.vault.seal(vault.RECORD, cbor(fields), refs, clear)
        return obj, (hashlib.sha256(obj).digest(), self.path_id(path), parent, op)

    def file(self, path, data, fields=None, chunk=1000, lists=0, holes=()):
        """The objects of a file and its row: inline, in chunks, or with lists."""
        fields = {2: 1, 6: [1_700_000_000, 123_456_789], 7: 0o640} | (fields or {})
        fields[3] = len(data) + sum(holes[1::2])
        if holes:
            fields[15] = list(holes)
        if len(data) <= 4096 and not chunk == 1:
            obj, row = self.record(path, fields={4: data} | fields)
            return [obj], row
        objects, entries, level = [], [], 0
        pieces = [data[i : i + chunk] for i in range(0, len(data), chunk)]
        for piece in pieces:
            obj = self.vault.seal(vault.CHUNK, piece)
            objects.append(obj)
            entries.append((hashlib.sha256(obj).digest(), len(piece), self.vault.ring().hash(piece)))
        for level in range(1, lists + 1):
            above = []
            for i in range(0, len(entries), 3):
                some = entries[i : i + 3]
                plaintext = encode_list(level - 1, some)
                obj = self.vault.seal(vault.LIST, plaintext, [e[0] for e in some])
                objects.append(obj)
                above.append((hashlib.sha256(obj).digest(), sum(e[1] for e in some), self.vault.ring().hash(plaintext)))
            entries = above
        fields[5] = encode_list(lists, entries)
        if len(entries) > 1:
            fields.setdefault(17, hashlib.sha256(data).digest())
        obj, row = self.record(path, fields=fields, refs=[e[0] for e in entries])
        return [*dict.fromkeys(objects), obj], row

    def commit(
        self, *changes, fields=None, signer=None, digest=None, seq=None, after=None, stored=None, lose=False, **stamp
    ):
        """Commit changes: (objects, row) each. The server loses the commit if
        lose is set, keeps it under another number if stored is one."""
        objects = list(dict.fromkeys(o for objs, _ in changes for o in objs))
        records = [row for _, row in changes]
        for record, path, parent, op in records:
            if op in (1, 3):
                self.state[path] = record, parent
            else:
                self.state.pop(path, None)
        total = history.Digest()
        for path, (record, parent) in self.state.items():
            total.add(path, parent, record)
        had = self.seq
        self.seq = seq or self.seq + 1
        body = {
            1: self.id, 2: self.seq, 4: history.records_root([r[0] for r in records]), 5: len(records),
            6: digest or total.sum(), 7: [48, 14, 90, 104], 8: self.vault.head(), 9: [], 10: [], 11: 5,
        }  # fmt: skip
        if self.hash:
            body |= {3: self.hash, 12: self.stamp}
        body |= fields or {}
        raw = cbor(body)
        raw = (signer or self).sign.sign(b"backstay/1 commit" + self.vault.id + raw) + raw
        self.hash = hashlib.sha256(raw).digest()
        server, number = self.vault.server, had if after is None else after
        if lose:
            server.clock += 1
            self.stamp = server.stamp(self.vault.id, self.hash)
        else:
            self.stamp = server.commit(
                self.vault.id, self.id, stored or self.seq, number, raw, records, objects, **stamp
            )


def encode_list(level, entries):
    return bytes([level]) + b"".join(struct.pack("<Q16s", size, digest) for _, size, digest in entries)
