"""Who may write to a vault, and what its devices committed: members, commits, the
records root, the state digest and stamps (SPEC.md 2.16 to 2.19)."""

import hashlib
import itertools
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import blake3
import cbor
from errors import Malformed, Refused, Untrusted
from identity import PUBLIC_SIZE, identify, sign_key, usable, verify
from vault import OUT_OF_SCOPE, PUT, DELETE, array, derive, octets, u32, uint

GENESIS, ADD, REVOKE, ROTATE, VOID = 1, 2, 3, 4, 5
_NEW_EPOCH = (REVOKE, ROTATE, VOID)
_MAX_ENTRY, _MAX_COMMIT, _MAX_LIVE, _MAX_RECORDS = 200_000, 65_536, 128, 16_384


def sha256(data):
    return hashlib.sha256(data).digest()


def _of(size):
    return lambda v: octets(v, size, size)


def _integer(value):
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _list_of(*checks):
    """A list of arrays, ascending by their first items, none twice."""

    def check(value):
        if type(value) is not list or not all(array(v, *checks) for v in value):
            return False
        ids = [v[0] for v in value]
        return ids == sorted(set(ids))

    return check


def _signed(raw, fields, most, what):
    """Signature, body and decoded body of an entry or commit."""
    if not 64 < len(raw) <= most:
        raise Malformed(f"{what} of {len(raw)} bytes")
    body = cbor.decode(raw[64:])
    if type(body) is not dict:
        raise Malformed(f"{what}: not a map")
    for key, value in body.items():
        if key not in fields or not fields[key](value):
            raise Malformed(f"{what}: key {key}")
    return raw[:64], raw[64:], body


# Members.

_ENTRY = {
    1: lambda v: uint(v, 5) and v > 0,
    2: uint,
    3: _of(32),
    4: _of(16),
    5: _integer,
    6: _of(PUBLIC_SIZE),
    7: lambda v: type(v) is str and 1 <= len(v.encode()) <= 254,
    8: _of(16),
    9: u32,
    10: _list_of(_of(16), _of(1168)),
    11: lambda v: octets(v) and len(v) in (48, 96),
    12: _of(32),
    13: _of(16),
}
_KEYS = {
    GENESIS: {1, 2, 4, 5, 6, 9, 10, 13},
    ADD: {1, 2, 3, 4, 5, 6, 7, 9, 10},
    REVOKE: {1, 2, 3, 4, 5, 8, 9, 10, 11},
    ROTATE: {1, 2, 3, 4, 5, 9, 10, 11},
    VOID: {1, 2, 3, 4, 5, 9, 10, 11, 12},
}


def states_root(entry, root_public):
    """The vault id of a genesis that states this root; None if it is none. Members
    verifies it."""
    try:
        body = _signed(entry, _ENTRY, _MAX_ENTRY, "member entry")[2]
    except Refused:
        return None
    return body.get(13) if body.get(1) == GENESIS and body.get(6) == root_public else None


class Members:
    """A membership log, verified from genesis against the root that the phrase
    gives. problem says why it ends before the last entry, if it does."""

    def __init__(self, vault, root_public, entries):
        self.vault, self.root, self.problem = vault, identify(root_public), None
        self.hashes = []  # of the entries, by number
        self.live = []  # the live devices after each entry
        self.public = {self.root: root_public}
        self.names = {}  # of all devices ever added
        self._epochs = {}  # epoch -> what its entry hands down: key 11, and the epochs it has the keys of
        self._wrapped = {}  # epoch -> recipient -> wrapped key
        self.epoch = []  # after each entry
        self.added = {}  # device -> number of the entry
        self.voided, self._newest_void = set(), 0  # numbers of entries
        for number, entry in enumerate(entries):
            try:
                self._verify(number, entry)
            except Refused as err:
                self.problem = f"member entry {number}: {err}; it and all that follow are not believed"
                break

    def _verify(self, number, entry):
        signature, raw, body = _signed(entry, _ENTRY, _MAX_ENTRY, "member entry")
        kind, signer = body.get(1), body.get(4)
        if body.keys() != _KEYS.get(kind):
            raise Malformed(f"keys {sorted(body)} in an entry of kind {kind}")
        if body[2] != number or (kind == GENESIS) != (number == 0):
            raise Untrusted(f"an entry of kind {kind} with number {body[2]}")
        if number and body[3] != self.hashes[-1]:
            raise Untrusted("it does not follow the entry before")
        live = self.live[-1] if self.live else frozenset()
        if signer not in live and signer != self.root or kind == VOID and signer != self.root:
            raise Untrusted("its signer may not do this")
        if not verify(sign_key(self.public[signer]), signature, b"backstay/1 member entry" + self.vault + raw):
            raise Untrusted("its signature is wrong")
        live, recipients = self._follow(kind, body, live)
        epoch = self.epoch[-1] if number else 0
        handed_down = [epoch] if kind in _NEW_EPOCH else []
        if kind != ADD:
            epoch += 1
        if body[9] != epoch or [w[0] for w in body[10]] != sorted(recipients):
            raise Untrusted(f"epoch {body[9]} for {len(body[10])} recipients; {epoch} for {len(recipients)} is right")
        if kind == VOID:
            keep = self.hashes.index(body[12])
            handed_down.append(self.epoch[keep])
        if len(body.get(11, b"")) != 48 * len(handed_down):
            raise Malformed("key 11 is of another length")
        if kind == VOID:
            self.voided.update(range(keep + 1, number))
            self._newest_void = number
        if kind != ADD:
            self._epochs[epoch] = body.get(11, b""), handed_down
        self._wrapped.setdefault(epoch, {}).update(body[10])
        self.epoch.append(epoch)
        self.hashes.append(sha256(entry))
        self.live.append(live)
        if kind == ADD:
            device = identify(body[6])
            self.public[device], self.names[device], self.added[device] = body[6], body[7], number

    def _follow(self, kind, body, live):
        """The live devices after an entry, and to whom it wraps."""
        if kind == GENESIS:
            if body[6] != self.public[self.root] or body[13] != self.vault:
                raise Untrusted("the genesis of another root or vault")
        elif kind == ADD:
            device = identify(body[6])
            if device in self.public or len(live) == _MAX_LIVE or not usable(body[6]):
                raise Untrusted("the device was added before, cannot be wrapped to, or there are too many")
            return live | {device}, [device]
        elif kind == REVOKE:
            if body[8] not in live:
                raise Untrusted("it revokes a device that is not live")
            live -= {body[8]}
        elif kind == VOID:
            if body[12] not in self.hashes[self._newest_void :]:
                raise Untrusted("the entry that is to stay is none since the newest void")
            live = self.live[self.hashes.index(body[12])]
        return live, [self.root, *live]

    def unwrap(self, me):
        """Epoch to vault keys, for the identity of a member or the root: the one
        wrapped to it and those that later epochs hand down. They are one and the
        same, unless a member lied to some of the others. Untrusted if the first
        is not there."""
        keys = {}
        for epoch, (sealed, handed_down) in sorted(self._epochs.items(), reverse=True):
            vault_epoch = self.vault + struct.pack("<I", epoch)
            found = keys.setdefault(epoch, [])
            try:
                key = me.hpke.open(b"backstay/1 wrap" + vault_epoch + me.id, self._wrapped[epoch].get(me.id, b""))
                if len(key) == 32 and key not in found:
                    found.insert(0, key)
            except ValueError:
                pass
            for key, (i, older) in itertools.product(found, enumerate(handed_down)):
                aead, nonce = AESGCM(derive(key, self.vault, epoch, b"previous key")), bytes([i]) + bytes(11)
                try:
                    previous = aead.decrypt(nonce, sealed[48 * i : 48 * (i + 1)], vault_epoch)
                except InvalidTag:
                    continue
                if previous not in keys.setdefault(older, []):
                    keys[older].append(previous)
        if not keys[1]:
            raise Untrusted("the key of the first epoch does not open")
        return {epoch: found for epoch, found in keys.items() if found}


# Commits.

_COMMIT = {
    1: _of(16),
    2: lambda v: uint(v) and v > 0,
    3: _of(32),
    4: _of(32),
    5: lambda v: uint(v, _MAX_RECORDS),
    6: _of(32),
    7: lambda v: array(v, u32, u32, u32, u32),
    8: _of(32),
    9: _list_of(_of(16), lambda v: uint(v) and v > 0, _of(32)),
    10: _list_of(_of(16), uint),
    11: _integer,
    12: _of(104),
    13: lambda v: array(v, uint, lambda h: octets(h) and len(h) in (0, 32)) and (v[0] == 0) == (v[1] == b""),
}
_OPTIONAL = {3, 12, 13}


@dataclass
class Verified:
    """A commit that its device signed, and what the store keeps with it."""

    hash: bytes
    body: dict
    stored: object

    @property
    def seq(self):
        return self.body[2]


def parse_commit(raw, vault, public):
    """Hash and body of a commit that the holder of public signed."""
    signature, body_bytes, body = _signed(raw, _COMMIT, _MAX_COMMIT, "commit")
    if _COMMIT.keys() - body.keys() - _OPTIONAL:
        raise Malformed("commit: a key is absent")
    if (body[2] == 1) != (3 not in body) or (body[2] == 1) != (12 not in body):
        raise Malformed("commit: keys 3 and 12 are for all but the first")
    if any(head[0] == body[1] for head in body[9]) or any(complete > body[2] for _, complete in body[10]):
        raise Malformed("commit: a head of its own, or a first pass that ended later")
    if 13 in body and (body[13][0] >= body[2] or body[13] == [body[2] - 1, body.get(3)]):
        raise Malformed("commit: key 13 names the commit before, or a later one")
    if body[1] != identify(public):
        raise Untrusted("it is of another device")
    if not verify(sign_key(public), signature, b"backstay/1 commit" + vault + body_bytes):
        raise Untrusted("its signature is wrong")
    return sha256(raw), body


def check_stamp(stamp, vault, commit_hash):
    """Time and server's key of a stamp."""
    if len(stamp) != 104:
        raise Malformed(f"stamp of {len(stamp)} bytes")
    time, key, signature = stamp[:8], stamp[8:40], stamp[40:]
    if time[7] > 127:
        raise Malformed("stamp with a time beyond 63 bits")
    if not verify(key, signature, b"backstay/1 stamp" + vault + commit_hash + time):
        raise Untrusted("its stamp does not verify")
    return int.from_bytes(time, "little"), key


def records_root(ids):
    """The Merkle tree hash of RFC 6962, section 2.1."""
    level = [sha256(b"\0" + i) for i in ids] or [sha256(b"")]
    while len(level) > 1:  # neighbours in pairs; one without rises as it is
        odd = level[len(level) & ~1 :]
        level = [sha256(b"\1" + a + b) for a, b in zip(level[::2], level[1::2])] + odd
    return level[0]


class Digest:
    """A state digest (2.18). 1,024 lanes of 16 bits are added at once: those with
    even and with odd numbers as two big integers with room above each lane."""

    _EVEN = int.from_bytes(b"\xff\xff\0\0" * 512, "little")

    def __init__(self):
        self._even = self._odd = 0

    def add(self, path, parent, record):
        element = int.from_bytes(blake3.digest(path + parent + record, size=2048), "little")
        self._even = (self._even + (element & self._EVEN)) & self._EVEN
        self._odd = (self._odd + (element >> 16 & self._EVEN)) & self._EVEN

    def bytes(self):
        return (self._even | self._odd << 16).to_bytes(2048, "little")

    def sum(self):
        return sha256(self.bytes())


class Chain:
    """The commits of one device, verified as far as they go. problems says what
    is wrong; commits holds those that the device signed, ascending."""

    def __init__(self, device, stored, members, servers):
        self.device, self.members, self._servers = device, members, servers
        self.commits, self.problems = [], []
        self._head = 0
        for s in stored:
            try:
                commit_hash, body = parse_commit(s.raw, members.vault, members.public[device])
                commit = Verified(commit_hash, body, s)
                self._check(commit)
                self.commits.append(commit)
            except Refused as err:
                self.problems.append(f"commit {s.seq}: {err}; it is left out")

    def _check(self, commit):
        """Refuse what is not the device's; note what is wrong around it."""
        body, s = commit.body, commit.stored
        before = self.commits[-1] if self.commits else None
        if (body[1], body[2]) != (s.device, s.seq):
            raise Untrusted("the store keeps it under another name")
        if len(s.records) != body[5] or records_root([r[0] for r in s.records]) != body[4]:
            raise Untrusted("its records are not those signed")
        if len({r[1] for r in s.records}) != len(s.records):
            raise Untrusted("it names a path twice")
        wrong = []
        if body[8] not in self.members.hashes:
            wrong.append("it names a membership head that is not in the log")
        else:
            head = self.members.hashes.index(body[8])
            if self.device not in self.members.live[head] or head < self._head:
                wrong.append("the device was no member then, or its view of the members went back")
            self._head = max(self._head, head)
        # What the server had as the newest: said by key 13 after a loss, else
        # the commit before.
        had = tuple(body[13]) if 13 in body else (body[2] - 1, body.get(3, b""))
        if had != ((before.seq, before.hash) if before else (0, b"")):
            wrong.append(f"it follows commit {had[0]}, which is not there" if had[0] else "it is not the first")
        try:
            time, key = check_stamp(s.stamp, self.members.vault, commit.hash)
            self._servers.setdefault(key, f"commit {commit.seq} of device {self.device.hex()}")
            if time != s.time or before and time <= before.stored.time:
                wrong.append("its stamp is not later than the one before, or not the one kept")
            if 12 in body:
                if check_stamp(body[12], self.members.vault, body[3])[0] >= time:
                    wrong.append("the stamp it signs for the commit before is not earlier than its own")
                if before and before.hash == body[3] and before.stored.stamp != body[12]:
                    wrong.append("the stamp it signs for the commit before is not the one kept")
        except Refused as err:
            wrong.append(str(err))
        self.problems += [f"commit {commit.seq}: {w}" for w in wrong]

    def lost(self, seq):
        """Whether the server lost this commit and a later one makes up for it."""
        return any(13 in c.body and c.body[13][0] < seq < c.seq for c in self.commits)

    def state(self, commit):
        """path id -> (record id, sequence number, operation, parent id) after a commit
        (2.18)."""
        state = {}
        for c in self.commits:
            if c.seq > commit.seq:
                break
            for record, path, parent, op in c.stored.records:
                if op in (PUT, OUT_OF_SCOPE):
                    state[path] = record, c.seq, op, parent
                elif op == DELETE:
                    state.pop(path, None)
        return state

    def at(self, time, gone):
        """The newest commit stamped at or before time (None: of all), and the
        commit to restore: that one, or the nearest before it of whose state the
        server has deleted nothing. gone says so of a record's id."""
        wanted = whole = None
        records, missing = {}, 0  # of the state, and how many of them are deleted
        for c in self.commits:
            if time is not None and c.stored.time > time:
                break
            wanted = c
            for record, path, _, op in c.stored.records:
                if op in (PUT, OUT_OF_SCOPE, DELETE):
                    missing -= gone(records.pop(path)) if path in records else 0
                    if op != DELETE:
                        records[path] = record
                        missing += gone(record)
            whole = c if missing == 0 else whole
        return wanted, wanted if time is None or whole is None else whole


def check_heads(chains):
    """What commits say of other devices' commits (key 9), against those: a server
    cannot hold back a commit that another device has seen."""
    problems = []
    for chain in chains.values():
        for c in chain.commits:
            for device, seq, commit_hash in c.body[9]:
                other = chains.get(device)
                found = [o.hash for o in other.commits if o.seq == seq] if other else []
                if found != [commit_hash] and not (other and not found and other.lost(seq)):
                    seen = f"commit {seq} of device {device.hex()}"
                    problems.append(f"device {chain.device.hex()} has seen {seen}, which is not there")
    return sorted(set(problems))
