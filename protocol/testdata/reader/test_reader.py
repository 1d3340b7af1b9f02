"""Tests of the reader: known answers, the repository's vectors, and whole stores."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
import unittest
import unittest.mock

import blake3
import builder
import cbor
import errors
import history
import hpke
import identity
import mlkem
import reader
import store
import tree
import vault
from builder import Device, Server, Vault, stream

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "..", "..", "vault", "testdata")


def load(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return json.load(f)


unhex = bytes.fromhex


class KnownAnswers(unittest.TestCase):
    """Answers of other implementations of the standards."""

    known = load(HERE, "kat.json")

    def test_blake3(self):
        key = unhex(self.known["blake3"]["key"])
        for v in self.known["blake3"]["hashes"]:
            data = bytes(i % 251 for i in range(v["length"]))
            with self.subTest(length=len(data)):
                self.assertEqual(blake3.digest(data, key).hex(), v["keyed"])
                self.assertEqual(blake3.digest(data, size=131).hex(), v["xof"])

    def test_mlkem(self):
        v = self.known["mlkem"]
        ek, secret = mlkem.keys(unhex(v["seed"]))
        self.assertEqual(ek.hex(), v["encapsulation_key"])
        ciphertext = bytearray(unhex(v["ciphertext"]))
        self.assertEqual(mlkem.decapsulate(secret, bytes(ciphertext)).hex(), v["shared"])
        ciphertext[v["altered_byte"]] ^= 1
        self.assertEqual(mlkem.decapsulate(secret, bytes(ciphertext)).hex(), v["rejected"])
        with self.assertRaises(ValueError):
            mlkem.encapsulate(b"\xff" * len(ek), bytes(32))

    def test_hpke(self):
        v = {k: unhex(x) for k, x in self.known["hpke"].items()}
        key = hpke.PrivateKey(v["private_key"])
        self.assertEqual(key.public, v["public_key"])
        self.assertEqual(key.open(v["info"], v["sealed"]), v["plaintext"])
        for info, sealed in ((b"other", v["sealed"]), (v["info"], v["sealed"][:-1]), (v["info"], b"")):
            with self.assertRaises(ValueError):
                key.open(info, sealed)
        self.assertEqual(key.open(b"i", hpke.seal(key.public, b"i", b"text", stream(64))), b"text")

    def test_crc32c(self):
        self.assertEqual(store.crc32c(b"123456789"), 0xE3069283)


class Cbor(unittest.TestCase):
    def test_round(self):
        for value in (0, 23, 24, 255, 256, 65536, 2**64 - 1, -1, -(2**64), b"", b"x" * 300, "é", [], [1, [b"2"]],
                      {}, {0: True, 300: [None], -1: False, -300: [1]}):  # fmt: skip
            self.assertEqual(cbor.decode(builder.cbor(value)), value)

    def test_refused(self):
        for name, data in {
            "nothing": "", "two values": "0000", "long form": "1817", "long length": "580100", "indefinite": "5f4100ff",
            "float": "f90000", "tag": "c000", "undefined": "f7", "simple": "f818", "cut": "4201", "count": "9bffffffffffffffff",
            "keys descend": "a201000000", "key twice": "a200000000", "text key": "a1616100", "large key": "a11b800000000000000000",
            "not UTF-8": "61ff", "deep": "81" * 17 + "00", "reserved": "1c",
        }.items():  # fmt: skip
            with self.subTest(name), self.assertRaises(errors.Malformed):
                cbor.decode(unhex(data))
        cbor.decode(unhex("81" * 16 + "00"))


class Objects(unittest.TestCase):
    """protocol/vault/testdata/objects.json (SPEC.md 2.12)."""

    v = load(VECTORS, "objects.json")
    ring = vault.Keyring(unhex(v["vault"]), {e["epoch"]: [unhex(e["vault_key"])] for e in v["epochs"]})

    def test_keys(self):
        for e in self.v["epochs"]:
            for field, label in (("siv_key", b"object siv"), ("enc_key", b"object encryption")):
                key = vault.derive(unhex(e["vault_key"]), self.ring.vault, e["epoch"], label)
                self.assertEqual(key.hex(), e[field])
        for p in self.v["paths"]:
            self.assertEqual(self.ring.path_id(unhex(p["device"]), unhex(p["path"])).hex(), p["id"])
        for h in self.v["hashes"]:
            self.assertEqual(self.ring.hash(unhex(h["plaintext"])).hex(), h["hash"])

    def test_open(self):
        opened = 0
        for o in self.v["objects"] + (self.v["older"] or []):
            if "object" not in o or o["codec"] and not vault.zstandard:
                continue
            opened += 1
            with self.subTest(o["name"]):
                obj = unhex(o["object"])
                header, plaintext = self.ring.open(obj)
                self.assertEqual(hashlib.sha256(obj).hexdigest(), o["id"])
                self.assertEqual(plaintext.hex(), o.get("plaintext", ""))
                self.assertEqual((header.type, header.epoch), (o["type"], o["epoch"]))
                self.assertEqual([r.hex() for r in header.refs], o.get("refs", []))
                r = o.get("record") or dict.fromkeys(("device", "seq", "path", "parent", "op"))
                clear = [
                    x.hex() if type(x) is bytes else x
                    for x in (header.device, header.seq, header.path, header.parent, header.op)
                ]
                self.assertEqual(clear, [r["device"], r["seq"], r["path"], r["parent"], r["op"]])
        self.assertGreater(opened, 9)

    def test_refuse(self):
        for b in self.v["bad"]:
            if "zstd" in b["name"] and not vault.zstandard:
                continue
            with self.subTest(b["name"]), self.assertRaises(errors.Refused) as caught:
                self.ring.open(unhex(b["object"]))
            self.assertEqual(caught.exception.kind, b["error"])

    def test_padme(self):
        for n, padded in ((9, 10), (11, 12), (17, 18), (105, 112), (257, 272), (1000, 1024), (4105, 4352),
                          (65537, 67584), (1048585, 1081344), (4194313, 4325376)):  # fmt: skip
            self.assertEqual(vault.padme(n), padded)


class History(unittest.TestCase):
    """protocol/vault/testdata/history.json (SPEC.md 4.9)."""

    v = load(VECTORS, "history.json")

    def test_identities(self):
        for v in self.v["identities"]:
            made = identity.Identity(unhex(v["seed"]), v["role"])
            self.assertEqual((made.public.hex(), made.id.hex()), (v["public"], v["id"]))

    def test_phrases(self):
        for v in self.v["phrases"]:
            self.assertEqual(identity.seed_of(v["phrase"]).hex(), v["seed"])
        for v in self.v["bad_phrases"]:
            right = v["count"] == 24 and "word" not in v
            says = (
                f"word {v['position']} .*{v['word']}" if "word" in v else "checksum" if right else f"{v['count']} words"
            )
            with self.subTest(v["phrase"]), self.assertRaisesRegex(ValueError, says):
                identity.seed_of(v["phrase"])

    def test_kits(self):
        for v in self.v["kits"]:
            kit, given = identity.read_kit(v["text"]), [v.get(k) and unhex(v[k]) for k in ("seed", "pin", "vault")]
            self.assertEqual([kit.seed, kit.pin, kit.vault], given)
        for v in self.v["bad_kits"]:
            with self.subTest(v["name"]), self.assertRaises(ValueError):
                identity.read_kit(v["text"])

    def members(self):
        v = self.v["members"]
        entries = [unhex(e["entry"]) for e in v["entries"]]
        root = identity.Identity(unhex(v["unlock"][0]["seed"]), "root")
        return unhex(v["vault"]), root, entries

    def test_members(self):
        vault_id, root, entries = self.members()
        self.assertEqual(history.states_root(entries[0], root.public), vault_id)
        log = history.Members(vault_id, root.public, entries)
        self.assertIsNone(log.problem)
        for n, e in enumerate(self.v["members"]["entries"]):
            self.assertEqual((log.hashes[n].hex(), log.epoch[n], sorted(d.hex() for d in log.live[n]), n in log.voided),
                             (e["hash"], e["epoch"], e["live"], e["voided"]), e["name"])  # fmt: skip
        for u in self.v["members"]["unlock"]:
            keys = log.unwrap(identity.Identity(unhex(u["seed"]), u["role"]))
            self.assertEqual(keys, {n: [unhex(key)] for n, key in enumerate(u["keys"], 1) if key}, u["seed"])

    def test_bad_members(self):
        vault_id, root, entries = self.members()
        for b in self.v["members"]["bad"]:
            with self.subTest(b["name"]):
                log = history.Members(vault_id, root.public, [*entries[: b["after"]], unhex(b["entry"])])
                self.assertIn(f"member entry {b['after']}: ", log.problem or "")

    def test_commits(self):
        for v in self.v["commits"]:
            public = identity.Identity(unhex(v["seed"]), "device").public
            got, body = history.parse_commit(unhex(v["commit"]), unhex(v["vault"]), public)
            after = v.get("after")
            want = {
                1: identity.identify(public), 2: v["seq"], 4: unhex(v["root"]), 5: v["count"], 6: unhex(v["digest"]),
                7: v["retention"], 8: unhex(v["members"]), 11: v["time"],
                9: [[unhex(h["device"]), h["seq"], unhex(h["hash"])] for h in v["heads"] or []],
                10: [[unhex(r["path"]), r["complete"]] for r in v["roots"] or []],
            } | ({3: unhex(v["prev"]), 12: unhex(v["prev_stamp"])} if "prev" in v else {})  # fmt: skip
            if after:
                want[13] = [after["seq"], unhex(after["hash"])]
            self.assertEqual((got.hex(), body), (v["hash"], want), v["name"])
        for v in self.v["bad_commits"]:
            public = identity.Identity(unhex(v["seed"]), "device").public
            with self.subTest(v["name"]), self.assertRaises(errors.Refused) as caught:
                history.parse_commit(unhex(v["commit"]), unhex(v["vault"]), public)
            self.assertEqual(caught.exception.kind, "malformed" if v["error"] == "malformed" else "history")

    def test_digests(self):
        for v in self.v["digests"]:
            taken, total = list(v.get("remove", [])), history.Digest()
            for e in v["add"] or []:
                if e in taken:
                    taken.remove(e)
                else:
                    total.add(unhex(e["path"]), unhex(e["parent"]), unhex(e["record"]))
            self.assertEqual(taken, [])
            self.assertEqual(total.sum().hex(), v["sha256"])
            self.assertIn(total.bytes().hex(), v.get("digest", total.bytes().hex()))

    def test_roots(self):
        def above(node, n, index, path):
            """The root above a node, by RFC 6962, section 2.1.1."""
            if n == 1:
                return node
            k = 1 << (n - 1).bit_length() - 1
            if index < k:
                return history.sha256(b"\1" + above(node, k, index, path[:-1]) + path[-1])
            return history.sha256(b"\1" + path[-1] + above(node, n - k, index - k, path[:-1]))

        for v in self.v["roots"]:
            ids = [unhex(r) for r in v["records"]]
            self.assertEqual(history.records_root(ids).hex(), v["root"])
            for i, path in enumerate(v.get("paths", [])):
                self.assertEqual(
                    above(history.sha256(b"\0" + ids[i]), len(ids), i, [unhex(p) for p in path]).hex(), v["root"]
                )

    def test_stamps(self):
        for v in self.v["stamps"]:
            with self.subTest(v["name"]):
                arguments = unhex(v["stamp"]), unhex(v["vault"]), unhex(v["commit"])
                if "error" not in v:
                    self.assertEqual(history.check_stamp(*arguments)[0], v["time"])
                    continue
                with self.assertRaises(errors.Refused) as caught:
                    history.check_stamp(*arguments)
                self.assertEqual(caught.exception.kind, "malformed" if v["error"] == "malformed" else "history")


class Phrase(unittest.TestCase):
    zeros = "abandon " * 23 + "art"  # the phrase of 32 zero bytes in BIP-39's own vectors

    def test_words(self):
        self.assertEqual(identity.seed_of(self.zeros), bytes(32))
        self.assertEqual(identity.seed_of("ABAN\n" * 23 + "art"), bytes(32))
        self.assertEqual(identity.seed_of("zoo " * 23 + "vote"), b"\xff" * 32)

    def test_refused(self):
        for phrase, why in (("abandon " * 24, "checksum"), ("abandon " * 23, "23 words"), ("aba " + self.zeros[8:], "'aba'"),
                            ("abandonx " + self.zeros[8:], "'abandonx'")):  # fmt: skip
            with self.subTest(why), self.assertRaisesRegex(ValueError, why):
                identity.seed_of(phrase)

    def test_kit(self):
        kit = identity.read_kit(f"\ufeff# a kit\r\n\r\nphrase: {self.zeros}\r\nserver: a:1\r\nserver: b:2\r\nnew: 1\r\n"
                                f"pin: {'ab' * 32}\r\nvault: {'CD' * 16}\r\n")  # fmt: skip
        self.assertEqual(kit, identity.Kit(bytes(32), b"\xab" * 32, b"\xcd" * 16))
        self.assertEqual(identity.read_kit("# words\n" + self.zeros.replace(" ", "\n")), identity.Kit(bytes(32)))
        for text in ("server: a:1", f"phrase: {self.zeros}\npin: 12", f"phrase: {self.zeros}\nphrase: {self.zeros}",
                     f"phrase: {self.zeros}\nmore"):  # fmt: skip
            with self.subTest(text), self.assertRaises(ValueError):
                identity.read_kit(text)


class Times(unittest.TestCase):
    def test_parse(self):
        for text, ns in (("1970-01-01T00:00:01Z", 10**9), ("2026-11-20t14:03:07.123456789+02:00", 1795176187123456789),
                         ("1970-01-02 01:00-00:30", 91800 * 10**9), ("1969-12-31T23:59:59.5Z", -5 * 10**8)):  # fmt: skip
            self.assertEqual(reader.parse_time(text), ns, text)
        self.assertEqual(reader.parse_time(reader.show_time(1795176187123456789)), 1795176187123456789)
        for text in ("yesterday", "2026-13-01", ""):
            with self.assertRaises(reader.argparse.ArgumentTypeError):
                reader.parse_time(text)


class Names(unittest.TestCase):
    def test_split(self):
        for name, parts in ((b"/a/b", [b"a", b"b"]), (b"/", []), (rb"C:\Users\ada", [b"C:", b"Users", b"ada"]),
                            (rb"\\server\share\x", [b"server", b"share", b"x"])):  # fmt: skip
            self.assertEqual(tree.split(name), parts)
        for name in (b"/a/../b", b"/a/./b", b"/a\0b", rb"C:\a/b", b"C:\\.."):
            with self.subTest(name), self.assertRaises(ValueError):
                tree.split(name)


class Stores(unittest.TestCase):
    """A store is built, the reader's main is run, and what it wrote is looked at."""

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)
        self.server = Server(os.path.join(self.dir, "store"))
        self.vault = Vault(self.server)
        self.laptop = Device(self.vault, "laptop", 10)
        self.vault.add(self.laptop)
        self.kit = os.path.join(self.dir, "kit")
        self.runs = 0
        self.write_kit(self.vault.seed)

    def write_kit(self, seed, more=""):
        bits = int.from_bytes(seed + hashlib.sha256(seed).digest()[:1], "big")
        words = identity.word_list()
        phrase = " ".join(words[bits >> 11 * i & 2047] for i in reversed(range(24)))
        with open(self.kit, "w", encoding="utf-8") as f:
            f.write(f"phrase: {phrase}\n{more}")

    def run_reader(self, *arguments, code=0, says=""):
        """Run the reader into a new folder, demand an exit code and, of what it
        says, a part; return the folder."""
        self.runs += 1
        out = os.path.join(self.dir, f"out{self.runs}")
        to = () if "--verify-only" in arguments else ("--to", out)
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            got = reader.main(["--store", self.server.folder, "--phrase-file", self.kit, *to, *arguments])
        self.assertEqual(got, code, said.getvalue())
        self.assertIn(says, said.getvalue())
        return out

    def read(self, *path):
        with open(os.path.join(*path), "rb") as f:
            return f.read()

    def damage(self, offset, number=1):
        with open(os.path.join(self.server.folder, "packs", f"{number:08}.pack"), "r+b") as f:
            f.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 1]))

    def put(self, path, data, *more, **options):
        objects, row = self.laptop.file(path, data, **options)
        self.laptop.commit((objects, row), *more)
        return objects, row

    def test_all_there_is(self):
        d, mtime = self.laptop, [1_600_000_000, 5]
        put = lambda path, fields: (lambda obj, row: ([obj], row))(*d.record(path, fields=fields))
        d.commit(
            put(b"/home/ada", {2: 2, 6: mtime, 7: 0o750}),
            d.file(b"/home/ada/inline", b"hello", {10: [[b"user.note", b"yes"]]}),
            d.file(b"/home/ada/empty", b""),
            d.file(b"/home/ada/chunks", stream(10_000)),
            d.file(b"/home/ada/one chunk", stream(5000), chunk=5000),
            d.file(b"/home/ada/lists", stream(30_000, 3), lists=2),
            d.file(b"/home/ada/holes", stream(5000, 4), chunk=700, holes=[0, 100, 2000, 8192, 13_292, 7]),
            d.file(b"/home/ada/only a hole", b"", holes=[0, 9000]),
            d.file(b"/home/ada/\xff\xfe", b"no UTF-8"),
            d.file(b"/home/ada/name", b"linked", {14: bytes(16)}),
            d.file(b"/home/ada/other name", b"linked", {14: bytes(16)}),
            put(b"/home/ada/link", {2: 3, 13: b"../../etc/passwd", 6: mtime}),
            put(b"/home/ada/pipe", {2: 4}),
            d.file(rb"C:\data\x", b"windows"),
        )
        out = self.run_reader(says="commit 1 of 2027-01-15T09:00:00.000000000Z, 14 paths")
        home = os.path.join(out, "laptop", "home", "ada")
        self.assertEqual(self.read(home, "inline"), b"hello")
        self.assertEqual(self.read(home, "empty"), b"")
        self.assertEqual(self.read(home, "chunks"), stream(10_000))
        self.assertEqual(self.read(home, "one chunk"), stream(5000))
        self.assertEqual(self.read(home, "lists"), stream(30_000, 3))
        data = stream(5000, 4)
        self.assertEqual(self.read(home, "holes"), bytes(100) + data[:1900] + bytes(8192) + data[1900:] + bytes(7))
        self.assertEqual(self.read(home, "only a hole"), bytes(9000))
        self.assertEqual(self.read(os.fsencode(home), b"\xff\xfe"), b"no UTF-8")
        self.assertTrue(os.path.samefile(os.path.join(home, "name"), os.path.join(home, "other name")))
        self.assertEqual(os.readlink(os.path.join(home, "link")), "../../etc/passwd")
        self.assertFalse(os.path.lexists(os.path.join(home, "pipe")))
        self.assertEqual(self.read(out, "laptop", "C:", "data", "x"), b"windows")
        st = os.stat(os.path.join(home, "inline"))
        self.assertEqual((stat.S_IMODE(st.st_mode), st.st_mtime_ns), (0o640, 1_700_000_000_123_456_789))
        for path in (home, os.path.join(home, "link")):
            self.assertEqual(os.lstat(path).st_mtime_ns, 1_600_000_000_000_000_005)
        self.assertEqual(stat.S_IMODE(os.stat(home).st_mode), 0o750)
        self.run_reader("--verify-only", says="verified 11 files")

    @unittest.skipUnless(vault.zstandard, "no zstandard: compressed objects cannot be opened")
    def test_compressed(self):
        data = b"all alike\n" * 1000
        obj = self.vault.seal(vault.CHUNK, data, codec=1, payload=vault.zstandard.ZstdCompressor().compress(data))
        entry = hashlib.sha256(obj).digest(), len(data), self.vault.ring().hash(data)
        fields = {2: 1, 3: len(data), 5: builder.encode_list(0, [entry])}
        record, row = self.laptop.record(b"/x", fields=fields, refs=[entry[0]])
        self.laptop.commit(([obj, record], row))
        self.assertEqual(self.read(self.run_reader(), "laptop", "x"), data)

    def test_time_travel(self):
        d, gone = self.laptop, lambda path, op, refs=(): (lambda obj, row: ([obj], row))(
            *self.laptop.record(path, op, refs=refs)
        )
        old, _ = self.put(b"/x", b"one")
        _, row = self.put(b"/x", b"two", d.file(b"/y", b"kept"))
        d.commit(gone(b"/x", 2), gone(b"/y", 3, [d.state[d.path_id(b"/y")][0]]))
        out = self.run_reader(says="1 no longer protected")
        self.assertEqual(os.listdir(os.path.join(out, "laptop")), ["y"])
        self.assertEqual(self.read(out, "laptop", "y"), b"kept")
        for at, x in (
            ("2027-01-15T09:00:00Z", b"one"),
            ("2027-01-15T09:59:59.999999999Z", b"one"),
            ("2027-01-15T10:00:00Z", b"two"),
        ):
            self.assertEqual(self.read(self.run_reader("--at", at), "laptop", "x"), x)
        self.run_reader("--at", "2027-01-15T08:59:59.999999999Z", says="no commit at or before")
        # What retention deleted is not restored as if it were there.
        self.server.delete(self.vault.id, [row[0]])
        self.assertEqual(
            self.read(self.run_reader("--at", "2027-01-15T10:30:00Z", says="commit 2 of 2027-01-15T10"), "laptop", "x"),
            b"one",
        )
        self.server.delete(self.vault.id, [hashlib.sha256(old[0]).digest()])
        self.run_reader("--at", "2027-01-15T10:30:00Z", code=5, says="deleted by retention")
        self.run_reader()

    def test_members(self):
        v, phone = self.vault, Device(self.vault, "phone", 11)
        self.put(b"/1", b"first epoch")
        v.add(phone, self.laptop)
        phone.commit(phone.file(b"/p", b"of the phone"))
        v.revoke(phone, self.laptop)
        self.put(b"/2", b"second epoch")
        v.begin_epoch({1: 4}, self.laptop)
        self.put(b"/3", stream(9000))
        keep, kept = v.entries[-1], v.epoch
        thief = Device(v, "thief", 12)
        v.add(thief, self.laptop)
        v.keys[99] = stream(32, 77)  # the thief tells the root another key than the others
        v.begin_epoch({1: 4}, thief, key=v.keys.pop(99))
        thief.commit(thief.file(b"/t", b"of the thief"))
        v.void(keep, [self.laptop], kept)
        self.put(b"/4", b"after the void")
        out = self.run_reader(says="thief was added by a member entry that was voided")
        for path, data in (("laptop/1", b"first epoch"), ("laptop/2", b"second epoch"), ("laptop/3", stream(9000)),
                           ("laptop/4", b"after the void"), ("phone/p", b"of the phone"), ("thief/t", b"of the thief")):  # fmt: skip
            self.assertEqual(self.read(out, path), data)
        self.assertEqual(os.listdir(self.run_reader("--device", phone.id.hex()[:8])), ["phone"])
        self.assertEqual(os.listdir(self.run_reader("--device", "laptop")), ["laptop"])
        self.run_reader("--device", "desk", code=1, says="has a device 'desk'")

    def test_members_refused(self):
        v, laptop = self.vault, self.laptop
        stranger, other, later = (Device(v, "x", n) for n in (20, 21, 22))
        head = hashlib.sha256(v.entries[-1]).digest()
        self.put(b"/x", b"x")
        add = {1: 2, 6: stranger.public, 7: "x"}
        bad_key = stranger.public[:64] + b"\xff" * 1216
        v.keys[2], v.keys[3] = stream(32, 502), stream(32, 503)
        for name, signer, body, recipients, more in (
            ("signed by a stranger", stranger, add, [stranger], {}),
            ("another number", laptop, add | {2: 3}, [stranger], {}),
            ("another entry before", laptop, add | {3: bytes(32)}, [stranger], {}),
            ("wrapped to one more", laptop, add, [stranger, other], {}),
            ("of another epoch", laptop, add | {9: 2}, [stranger], {}),
            ("a key too many", laptop, add | {12: head}, [stranger], {}),
            ("without a name", laptop, {1: 2, 6: stranger.public}, [stranger], {}),
            ("added twice", laptop, {1: 2, 6: laptop.public, 7: "x"}, [laptop], {}),
            ("the root as a device", laptop, {1: 2, 6: v.root.public, 7: "x"}, [v.root], {}),
            (
                "no key to wrap to",
                laptop,
                {1: 2, 6: bad_key, 7: "x", 10: [[identity.identify(bad_key), bytes(1168)]]},
                [],
                {},
            ),
            ("a second genesis", v.root, {1: 1, 6: v.root.public, 13: v.id, 9: 2}, [v.root], {}),
            ("revokes a stranger", laptop, {1: 3, 8: stranger.id, 9: 2}, [v.root, laptop], {"handed_down": [1]}),
            ("rotates without the root", laptop, {1: 4, 9: 2}, [laptop], {"handed_down": [1]}),
            ("leaves out an epoch", laptop, {1: 4, 9: 3}, [v.root, laptop], {"handed_down": [1]}),
            ("voids as a device", laptop, {1: 5, 9: 2, 12: head}, [v.root, laptop], {"handed_down": [1, 1]}),
            (
                "voids to an unknown entry",
                v.root,
                {1: 5, 9: 2, 12: bytes(32)},
                [v.root, laptop],
                {"handed_down": [1, 1]},
            ),
            ("hands down one key only", v.root, {1: 5, 9: 2, 12: head}, [v.root, laptop], {"handed_down": [1]}),
        ):
            with self.subTest(name):
                entry = v.add_entry(signer, body, recipients, store_it=False, **more)
                v.entries.pop()
                log = history.Members(v.id, v.root.public, [*v.entries, entry])
                self.assertIn("member entry 2", log.problem or "")
        # A void is final: none may go back before it.
        v.add(other, laptop)
        v.void(v.entries[1], [laptop], 1)
        self.assertIsNone(history.Members(v.id, v.root.public, v.entries).problem)
        v.void(v.entries[2], [laptop, other], 1)
        self.assertIn("member entry 4", history.Members(v.id, v.root.public, v.entries).problem)
        self.run_reader(code=5, says="member entry 4")

    def test_commits_refused(self):
        for name, says, change in (
            ("signed by another", "signature is wrong", dict(signer=Device(self.vault, "x", 20))),
            ("of another device", "of another device", dict(fields={1: bytes(16)})),
            ("another root", "not those signed", dict(fields={4: bytes(32)})),
            ("another count", "not those signed", dict(fields={5: 2})),
            ("another digest", "the state is not the one", dict(digest=bytes(32))),
            ("another commit before", "follows commit 1, which is not there", dict(fields={3: bytes(32)})),
            ("another stamp before", "stamp", dict(fields={12: bytes(104)})),
            (
                "another stamp before than kept",
                "the stamp it signs for the commit before is not the one kept",
                dict(fields={12: 5}),
            ),
            (
                "a later stamp before",
                "the stamp it signs for the commit before is not earlier",
                dict(fields={12: 2**62}),
            ),
            ("stamped with another time than kept", "not the one kept", dict(stamp_time=2**62)),
            ("kept under another number", "under another name", dict(stored=5)),
            ("without the commit before", "keys 3 and 12", dict(fields={3: None, 12: None})),
            ("without a digest", "a key is absent", dict(fields={6: None})),
            ("its own stamp false", "does not verify", dict(stamp=self.server.stamp(self.vault.id, bytes(32)))),
            ("an unknown member entry", "membership head", dict(fields={8: bytes(32)})),
            (
                "before it was a member",
                "no member then",
                dict(fields={8: hashlib.sha256(self.vault.entries[0]).digest()}),
            ),
            (
                "a commit seen that is not there",
                "has seen commit 7",
                dict(fields={9: [[self.vault.root.id, 7, bytes(32)]]}),
            ),
            ("a key of a later version", "key 14", dict(fields={14: 1})),
            ("not the next", "follows commit 2, which", dict(seq=3)),
        ):
            with self.subTest(name):
                self.tearDown(), self.doCleanups(), self.setUp()
                self.put(b"/x", b"one")
                if "stamp it signs" in says:
                    change["fields"][12] = self.server.stamp(self.vault.id, self.laptop.hash, change["fields"][12])
                self.laptop.commit(self.laptop.file(b"/y", b"two"), **change)
                self.assertEqual(self.read(self.run_reader(code=5, says=says), "laptop", "x"), b"one")

    def test_false_genesis(self):
        """Who signs a vault in another's name gets nothing restored, and hinders nothing."""
        self.put(b"/x", b"one")
        body = {1: 1, 6: self.vault.root.public, 13: stream(16, 9), 9: 1, 2: 0}
        entry = self.vault.add_entry(self.laptop, body, [self.vault.root], store_it=False)
        self.server.member(stream(16, 9), 0, entry)
        out = self.run_reader(code=5, says="member entry 0: ")
        self.assertEqual(self.read(out, self.vault.id.hex(), "laptop", "x"), b"one")

    def test_lost_member_entry(self):
        self.put(b"/x", b"one")
        desk = Device(self.vault, "desk", 12)
        self.vault.live[desk.id] = desk
        self.vault.add_entry(self.laptop, {1: 2, 6: desk.public, 7: "desk"}, [desk], store_it=False)
        self.vault.begin_epoch({1: 4})
        desk.commit(desk.file(b"/d", b"lost"))
        self.assertEqual(os.listdir(self.run_reader(code=5, says="member entry 2 is lost")), ["laptop"])
        self.run_reader("--device", "laptop", code=5, says=f"commits of {desk.id.hex()}, which no member entry added")

    def test_other_server(self):
        self.put(b"/x", b"one")
        self.server.key = builder.Ed25519PrivateKey.from_private_bytes(stream(32, 98))
        self.server.public = hpke.raw(self.server.key.public_key())
        self.put(b"/y", b"two")
        self.run_reader(code=5, says="2 servers have stamped commits")

    def test_other_records(self):
        """Records that a commit signs, and that are not the ones they stand for."""
        d = self.laptop
        self.put(b"/x", b"one")
        obj, row = d.record(b"/later", fields={2: 2}, seq=7)
        other, (record, _, parent, _) = d.record(b"/a", fields={2: 2})
        d.commit(([obj], row), ([other], (record, d.path_id(b"/b"), parent, 1)))
        self.run_reader(code=5, says="the record is of another commit")
        self.run_reader(code=5, says="the record is not the one that was committed")

    def test_path_twice(self):
        self.put(b"/x", b"one", self.laptop.file(b"/x", b"two"))
        self.run_reader(code=5, says="names a path twice")

    def test_lost_commits(self):
        """A server that lost commits, and the commit that makes up for it (2.17, key 13)."""
        d, phone = self.laptop, Device(self.vault, "phone", 11)
        self.put(b"/x", b"one")
        kept = d.hash
        objects, row = d.file(b"/y", b"two")
        d.commit((objects, row), lose=True)
        seen = d.hash
        self.vault.add(phone)
        phone.commit(phone.file(b"/p", b"p"), fields={9: [[d.id, 2, seen]]})
        self.run_reader(code=5, says="has seen commit 2")
        del d.state[row[1]]
        d.commit(d.file(b"/y", b"two"), fields={13: [1, kept]}, after=1)
        self.assertEqual(self.read(self.run_reader(), "laptop", "y"), b"two")

    def test_pin(self):
        self.put(b"/x", b"x")
        self.write_kit(
            self.vault.seed, f"pin: {identity.pin(self.server.public).hex()}\nvault: {self.vault.id.hex()}\n"
        )
        self.run_reader()
        self.write_kit(self.vault.seed, f"pin: {'00' * 32}\n")
        self.run_reader(code=5, says="not the kit's")
        self.write_kit(self.vault.seed, f"vault: {'00' * 16}\n")
        self.run_reader(code=5, says="the kit's vault")

    def test_nothing_to_restore(self):
        self.write_kit(bytes(32))
        self.run_reader(code=1, says="no vault of this phrase")
        with open(self.kit, "w", encoding="utf-8") as f:
            f.write("abandon " * 24)
        self.run_reader(code=1, says="checksum")
        for arguments in ((), ("--store", "x", "--phrase-file", "y"), ("--at", "noon")):
            with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()):
                reader.main(list(arguments))
            self.assertEqual(caught.exception.code, 2)
        self.write_kit(self.vault.seed)
        os.mkdir(os.path.join(self.dir, f"out{self.runs + 1}"))
        self.run_reader(says="no commits")
        open(os.path.join(self.dir, f"out{self.runs + 1}"), "w").close()
        self.put(b"/x", b"x")
        self.run_reader(code=1)
        os.mkdir(os.path.join(self.dir, f"out{self.runs + 1}"))
        open(os.path.join(self.dir, f"out{self.runs + 1}", "x"), "w").close()
        self.run_reader(code=1, says="is not empty")
        shutil.rmtree(os.path.join(self.server.folder, "packs"))
        self.run_reader(code=1)

    def test_content_damaged(self):
        d = self.laptop
        objects, row = d.file(b"/bad", stream(5000))
        self.put(b"/good", b"good", (objects[1:], row))
        out = self.run_reader(code=5, says="laptop: /bad: missing: object")
        self.assertEqual(os.listdir(os.path.join(out, "laptop")), ["good"])
        for name, says, fields in (
            ("another hash", "not the one listed", lambda e: {5: builder.encode_list(0, [(e[0], e[1], bytes(16))])}),
            ("another size", "another size", lambda e: {3: 4999, 5: builder.encode_list(0, [(e[0], 4999, e[2])])}),
            ("list for a chunk", "not the one listed", lambda e: {5: builder.encode_list(1, [e])}),
            ("two refs, one entry", "list of 25 bytes for 2 refs", lambda e: {}),
            ("inline of another size", "inline content of another size", lambda e: {2: 1, 3: 2, 4: b"x", 5: None}),
            ("no map", "not a map", lambda e: []),
            ("sizes that do not add up", "do not fit", lambda e: {3: 5001}),
            ("a critical field", "newer version", lambda e: {-1: 0}),
            ("inline, too", "do not fit", lambda e: {4: b""}),
            ("a sum of one chunk", "SHA-256", lambda e: {17: bytes(32)}),
            ("another path", "another path", lambda e: {1: b"/elsewhere"}),
            ("touching holes", "field 15", lambda e: {15: [0, 1, 1, 1]}),
            ("hole beyond the end", "hole beyond", lambda e: {15: [5000, 1]}),
        ):
            with self.subTest(name):
                obj = self.vault.seal(vault.CHUNK, stream(5000))
                entry = hashlib.sha256(obj).digest(), 5000, self.vault.ring().hash(stream(5000))
                stated, refs = fields(entry), [entry[0]] * (2 if "two refs" in name else 1)
                if stated != []:
                    stated = {1: b"/bad", 2: 1, 3: 5000, 5: builder.encode_list(0, [entry])} | stated
                    refs = refs if stated[5] else []
                record, row = d.record(b"/bad", fields=stated, refs=refs)
                d.commit(([obj, record], row))
                self.assertEqual(os.listdir(os.path.join(self.run_reader(code=5, says=says), "laptop")), ["good"])
        self.put(b"/bad", stream(5000), fields={17: bytes(32)})
        self.run_reader(code=5, says="SHA-256 of the whole content differs")
        self.put(b"/bad", stream(5000), fields={17: None})
        self.run_reader(code=5, says="SHA-256 present or absent")
        obj, row = d.record(b"/bad", 3)
        d.commit(([obj], row))
        self.run_reader(code=5, says="0 refs for operation 3")
        inner = self.vault.seal(vault.LIST, builder.encode_list(1, [(bytes(32), 5, bytes(16))]), [bytes(32)])
        digest = self.vault.ring().hash(builder.encode_list(1, [(bytes(32), 5, bytes(16))]))
        refs = [hashlib.sha256(inner).digest()]
        obj, row = d.record(b"/bad", fields={2: 1, 3: 5, 5: builder.encode_list(1, [(refs[0], 5, digest)])}, refs=refs)
        d.commit(([inner, obj], row))
        self.run_reader(code=5, says="is of another level")

    def test_without_zstandard(self):
        payload = self.vault.seal(vault.CHUNK, bytes(99), codec=1, payload=b"whatever")
        with unittest.mock.patch.object(vault, "zstandard", None), self.assertRaisesRegex(
            RuntimeError, "python3-zstandard"
        ):
            self.vault.ring().open(payload)

    def test_entries_refused(self):
        """Whole entries whose bodies are not of their form, and a newer pack."""
        self.put(b"/x", b"one")
        for kind, body in (
            (store._COMMIT, b""),
            (store._COMMIT, b"\xff" * 50),
            (store._ITEM, b""),
            (store._DELETION, b"1"),
        ):
            self.server.write(kind, self.vault.id, body)
        self.server.member(stream(16, 8), 0, b"no entry")
        out = self.run_reader(code=5, says="malformed: deletion entry")
        self.assertEqual(self.read(out, "laptop", "x"), b"one")
        self.assertEqual(len(store.Store(self.server.folder).damage), 4)
        with open(self.server.name(), "r+b") as f:
            head = bytearray(f.read(28))
            head[8] = 2
            f.seek(0)
            f.write(head + store.crc32c(head).to_bytes(4, "little"))
        self.run_reader(code=5, says="newer format")
        os.unlink(self.server.name())
        self.run_reader(code=1, says="no packs")

    def test_stays_within(self):
        """Neither names nor links lead out of OUT."""
        d, outside = self.laptop, os.path.join(self.dir, "outside")
        os.mkdir(outside)
        link, row = d.record(b"/a", fields={2: 3, 13: os.fsencode(outside)})
        d.commit(([link], row), d.file(b"/a/b", b"x"), d.file(b"/../c", b"x"), d.file(b"/ok", b"x"))
        out = self.run_reader(code=1, says="/a: File exists")
        self.assertEqual((os.listdir(outside), sorted(os.listdir(os.path.join(out, "laptop")))), ([], ["a", "ok"]))
        long = b"/" + b"/".join([b"n" * 200] * 30)
        self.put(long, b"deep")  # longer than the system takes at once
        out = self.run_reader(code=1)
        written = [n for _, _, names, _ in os.fwalk(os.path.join(out, "laptop", "n" * 200)) for n in names]
        self.assertEqual(written, ["n" * 200])
        self.run_reader("--verify-only", code=1, says="/../c: the path has a name that cannot be written")

    def test_device_names(self):
        self.put(b"/x", b"x")
        for n, name in enumerate(("laptop", "..", "a/b", "é" * 127), 30):
            device = Device(self.vault, name, n)
            self.vault.add(device)
            device.commit(device.file(b"/x", name.encode()))
            if name == "laptop":
                twin = device.id.hex()[:8]
        out = self.run_reader()
        names = ["_..", "a_b", "é" * 120, f"laptop {twin}", f"laptop {self.laptop.id.hex()[:8]}"]
        self.assertEqual(sorted(os.listdir(out)), sorted(names))

    def test_two_vaults(self):
        self.put(b"/x", b"one")
        other = Vault(self.server, vault_id=stream(16, 3))
        device = Device(other, "desk", 40)
        other.add(device)
        device.commit(device.file(b"/x", b"two"))
        out = self.run_reader()
        self.assertEqual(self.read(out, self.vault.id.hex(), "laptop", "x"), b"one")
        self.assertEqual(self.read(out, other.id.hex(), "desk", "x"), b"two")
        self.write_kit(self.vault.seed, f"vault: {other.id.hex()}\n")
        self.assertEqual(os.listdir(self.run_reader()), ["desk"])

    def test_torn_tail(self):
        """What a crash leaves at the end of the last pack is passed over."""
        self.put(b"/x", b"one")
        self.server.pack()
        objects, row = self.laptop.file(b"/x", b"two")
        before = os.path.getsize(self.server.name())
        self.laptop.commit((objects, row))
        size = os.path.getsize(self.server.name())
        for cut in (size - 1, before + 70, before + 20, before, 20):
            with self.subTest(cut=cut):
                os.truncate(self.server.name(), cut)
                self.assertEqual(self.read(self.run_reader(), "laptop", "x"), b"one")
        # The record alone is whole, but it is tied to a commit that is not.
        self.server.number -= 1
        self.server.pack()
        self.server.objects(self.vault.id, objects, store._PART)
        self.assertNotIn((self.vault.id, row[0]), store.Store(self.server.folder).objects)

    def test_damaged_packs(self):
        self.put(b"/x", b"one")
        size = os.path.getsize(self.server.name())
        self.put(b"/y", b"two")
        self.server.pack()
        self.put(b"/z", b"three")
        self.damage(5)  # the header: the first entry's mark serves
        self.assertEqual(self.read(self.run_reader(), "laptop", "x"), b"one")
        self.damage(size + 68 + 100)  # the record of /y
        out = self.run_reader(code=5, says="pack 1: ")
        self.assertEqual(sorted(os.listdir(os.path.join(out, "laptop"))), ["x", "z"])
        self.damage(-1)  # commit 2
        out = self.run_reader(code=5, says="it follows commit 2, which is not there")
        self.assertEqual(sorted(os.listdir(os.path.join(out, "laptop"))), ["x", "z"])
        self.damage(40)  # the genesis
        self.damage(-1, 2)
        self.run_reader(code=1, says="no vault")

    def test_moved_objects(self):
        """Objects that were rewritten into a later pack, and a pack that is gone."""
        objects, row = self.laptop.file(b"/x", stream(5000))
        self.server.pack()
        self.server.objects(self.vault.id, objects[:-1])
        self.server.pack()
        self.laptop.commit((objects[-1:], row))
        self.server.pack()
        self.server.objects(self.vault.id, objects[:-1])
        self.assertEqual(self.read(self.run_reader(), "laptop", "x"), stream(5000))
        os.unlink(os.path.join(self.server.folder, "packs", "00000002.pack"))
        self.assertEqual(self.read(self.run_reader(), "laptop", "x"), stream(5000))


if __name__ == "__main__":
    unittest.main()
