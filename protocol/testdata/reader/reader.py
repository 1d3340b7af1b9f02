#!/usr/bin/env python3
"""Restore a vault from a server's store with nothing but the recovery phrase.

It reads the packs alone, needs neither server nor index, shares no code with
either, and implements protocol/SPEC.md, Parts 2 and 3. See README.md.
"""

import argparse
import contextlib
import os
import re
import sys
from collections import Counter
from datetime import datetime, timezone

import history
import identity
import store
import vault
from errors import Refused, WrongContent
from tree import Tree, split

DONE, FAILED, USAGE, INTEGRITY = 0, 1, 2, 5


class Failed(Exception):
    """Nothing can be restored: what, why, what to do."""


def parse_time(text):
    """Nanoseconds since 1970 of an RFC 3339 time, or of a local one without an
    offset. Digits of the fraction beyond the ninth mean nothing."""
    match = re.fullmatch(r"([0-9-]{10})(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?)?([Zz]|[+-]\d\d:\d\d)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-20T14:03:07.5Z")
    day, clock, fraction, offset = match.groups()
    offset = "+00:00" if offset in ("Z", "z") else offset or ""
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{offset}").astimezone()
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r}: {err}") from None
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86400 + since.seconds) * 10**9 + int((fraction or "").ljust(9, "0")[:9])


def show_time(ns):
    seconds, fraction = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"


def printable(name):
    return ascii(name.decode("utf-8", "replace"))[1:-1] if not name.isascii() else repr(name)[2:-1]


class Reader:
    """One run: what was asked, what was found wrong."""

    def __init__(self, options, kit, packs):
        self.options, self.kit, self.store = options, kit, packs
        self.root = identity.Identity(kit.seed, "root")
        self.problems = 0  # things that are not as their owner left them
        self.failures = 0  # things that could not be written
        self.found = False  # a device that was asked for

    def say(self, text):
        print(text, flush=True)

    def problem(self, text):
        self.problems += 1
        print(f"reader: integrity: {text}", file=sys.stderr, flush=True)

    def failure(self, text):
        self.failures += 1
        print(f"reader: {text}", file=sys.stderr, flush=True)

    def run(self):
        for text in self.store.damage:
            self.problem(text)
        for text in self.store.notes:
            self.say(f"note: {text}; nothing acknowledged is lost by that")
        vaults = self.vaults()
        if not vaults:
            raise Failed("the store holds no vault of this phrase; is it the right phrase, and the right store?")
        for vault_id in vaults:
            folder = self.options.to
            if folder and len(vaults) > 1:
                folder = os.path.join(folder, vault_id.hex())
            self.vault(vault_id, folder)
        if self.options.device and not self.found:
            raise Failed(f"no vault of this phrase has a device {self.options.device!r}")
        if self.problems:
            return INTEGRITY
        return FAILED if self.failures else DONE

    def vaults(self):
        """The vaults whose genesis states the root; of these the kit's, if it
        names one."""
        found = []
        for (kind, key), (_, body) in self.store.items.items():
            if kind == store.MEMBER and key[16:] == bytes(16):
                if history.states_root(body, self.root.public) == key[:16]:
                    found.append(key[:16])
        if self.kit.vault in found:
            return [self.kit.vault]
        if self.kit.vault and found:
            self.problem(f"the kit's vault {self.kit.vault.hex()} is not in the store")
        return sorted(found)

    def entries(self, vault_id):
        """The member entries of a vault, up to the first that is not there."""
        number = 0
        while item := self.store.items.get((store.MEMBER, vault_id + number.to_bytes(16, "big"))):
            yield item[1]
            number += 1

    def vault(self, vault_id, folder):
        """Verify and restore one vault."""
        members = history.Members(vault_id, self.root.public, self.entries(vault_id))
        if members.problem:
            self.problem(f"vault {vault_id.hex()}: {members.problem}")
        if not members.hashes:
            return
        entries = sum(kind == store.MEMBER and key[:16] == vault_id for kind, key in self.store.items)
        if entries > len(members.hashes) and not members.problem:
            self.problem(f"member entry {len(members.hashes)} is lost, and with it what follows")
        keys = vault.Keyring(vault_id, members.unwrap(self.root))
        self.say(f"vault {vault_id.hex()}: {len(members.hashes)} member entries, epoch {max(keys.keys)}")
        chains = self.chains(vault_id, members)
        wanted = [d for d in chains if self.selected(d, members.names[d])]
        self.found |= bool(wanted)
        names = Counter(folder_name(members.names[d]) for d in chains)
        for device in wanted:
            name = folder_name(members.names[device])
            if names[name] > 1:
                name = f"{name} {device.hex()[:8]}"
            chain = chains[device]
            if not chain.commits:
                self.say(f"{name} ({device.hex()}): no commits")
                continue
            if members.added[device] in members.voided:
                self.say(f"note: {name} was added by a member entry that was voided since; judge what it holds")
            Restore(self, keys, chain, name, folder and os.path.join(folder, name)).run()

    def selected(self, device, name):
        asked = self.options.device
        return not asked or asked == name or len(asked) >= 4 and device.hex().startswith(asked.lower())

    def chains(self, vault_id, members):
        """The chains of all devices, so that one can be held against the other."""
        logs, servers = self.store.commits.get(vault_id, {}), {}
        for device in logs.keys() - members.names.keys():
            self.problem(f"commits of {device.hex()}, which no member entry added, are left out")
        chains = {d: history.Chain(d, logs.get(d, ()), members, servers) for d in members.names}
        for device, chain in chains.items():
            for text in chain.problems:
                self.problem(f"device {device.hex()}: {text}")
        for text in history.check_heads(chains):
            self.problem(text)
        for key, where in servers.items():
            if self.kit.pin and identity.pin(key) != self.kit.pin:
                self.problem(f"{where} is stamped by a server that is not the kit's: times may be false")
        if len(servers) > 1:
            self.problem(f"{len(servers)} servers have stamped commits")
        if servers and not self.kit.pin:
            pins = " ".join(identity.pin(key).hex() for key in servers)
            self.say(f"note: the times rest on the server with the pin {pins}; compare it if you can")
        return chains


def folder_name(name):
    """A device's name as one of a folder, with room for the beginning of its id."""
    name = "".join(c if c.isprintable() and c != "/" else "_" for c in name)
    name = name.encode()[:240].decode(errors="ignore")
    return "_" + name if name in (".", "..") else name


class Restore:
    """The state of one device at one commit, being written or only verified."""

    def __init__(self, reader, keys, chain, name, folder):
        self.reader, self.keys, self.chain, self.name = reader, keys, chain, name
        self.folder = folder
        self.links = {}  # link group -> (content, where it was written)
        self.count = Counter()

    def get(self, object_id):
        return self.reader.store.get(self.keys.vault, object_id)

    def run(self):
        reader, at = self.reader, self.reader.options.at
        asked, commit = self.chain.at(at, lambda record: reader.store.gone(self.keys.vault, record))
        if commit is None:
            return reader.say(f"{self.name}: no commit at or before that time")
        if commit is not asked:
            reader.say(
                f"note: {self.name}: commit {asked.seq} of {show_time(asked.stored.time)} is not kept any more; "
                f"the nearest before it that is kept is restored"
            )
        time = show_time(commit.stored.time)
        state = self.chain.state(commit)
        reader.say(f"{self.name} ({self.chain.device.hex()}): commit {commit.seq} of {time}, {len(state)} paths")
        unfinished = sum(1 for _, number in commit.body[10] if number == 0)
        if unfinished:
            reader.say(f"note: {self.name}: the first pass over {unfinished} of its folders was not complete then")
        digest = history.Digest()
        for path, (record, _, _, parent) in state.items():
            digest.add(path, parent, record)
        if digest.sum() != commit.body[6]:
            reader.problem(
                f"{self.name}: the state is not the one that commit {commit.seq} signs: paths are lost or added"
            )
        tree = Tree(self.folder) if self.folder else None
        for path, row in sorted(state.items()):
            self.path(tree, path, *row)
        for name, err in tree.finish() if tree else ():
            reader.failure(f"{self.name}: {printable(name)}: {err.strerror}")
        done = ", ".join(f"{n} {what}" for what, n in sorted(self.count.items()))
        reader.say(f"{self.name}: {'restored' if tree else 'verified'} {done or 'nothing'}")
        for what, n in sorted(tree.warnings.items() if tree else ()):
            reader.say(f"note: {self.name}: {what} of {n} paths were not set")

    def path(self, tree, path, record_id, seq, op, parent):
        """Restore one path, or say why not."""
        where = f"{self.name}: path {path.hex()}"
        try:
            header, record = self.record(record_id, path, op)
            if header.seq != seq or header.parent != parent:
                raise WrongContent("the record is of another commit or folder")
            if op == vault.OUT_OF_SCOPE:  # no longer protected: as it was last
                self.count["no longer protected"] += 1
                header, record = self.record(header.refs[0], path, vault.PUT)
            where = f"{self.name}: {printable(record.name)}"
            self.write(tree, split(record.name), record)
        except Refused as err:
            self.reader.problem(f"{where}: {err}")
        except (OSError, ValueError) as err:
            self.reader.failure(f"{where}: {getattr(err, 'strerror', None) or err}")

    def record(self, record_id, path, op):
        """Open a record and hold it against what led to it."""
        header, plaintext = self.keys.open(self.get(record_id))
        if (header.type, header.device, header.path, header.op) != (vault.RECORD, self.chain.device, path, op):
            raise WrongContent("the record is not the one that was committed")
        record = vault.decode_record(plaintext, header)
        if record.name is None or self.keys.path_id(header.device, record.name) != path:
            raise WrongContent("the record names another path")
        return header, record

    def write(self, tree, parts, record):
        if record.type == vault.FILE:
            self.file(tree, parts, record)
        elif record.type in (vault.FOLDER, vault.SYMLINK):
            if tree and parts:
                tree.later(parts, record)
            self.count["folders" if record.type == vault.FOLDER else "symbolic links"] += 1
        else:
            self.count["special files, which are not made"] += 1

    def file(self, tree, parts, record):
        group = record.fields.get(14)
        content, first = self.links.get(group, (None, None))
        if tree and first and content == record.content:
            tree.link(parts, first)
            self.count["hard links"] += 1
            return
        pieces = vault.read_content(record.content, self.keys, self.get)
        if tree:
            tree.file(parts, record, pieces)
        else:
            for _ in pieces:
                pass
        if group:
            self.links[group] = record.content, parts
        self.count["files"] += 1
        if record.fields.get(16):
            self.count["files that changed while they were read"] += 1


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="reader.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--store", required=True, metavar="DIR", help="the server's store: the folder that holds packs/"
    )
    parser.add_argument(
        "--phrase-file", required=True, metavar="KIT", help="the recovery kit, or a file of the 24 words"
    )
    parser.add_argument("--to", metavar="OUT", help="a folder to restore into, new or empty")
    parser.add_argument("--at", metavar="TIME", type=parse_time, help="restore the newest commits at or before TIME")
    parser.add_argument("--device", metavar="ID", help="restore this device only: its id, its beginning, or its name")
    parser.add_argument("--verify-only", action="store_true", help="verify everything, write nothing")
    options = parser.parse_args(arguments)
    if options.verify_only == (options.to is not None):
        parser.error("give either --to OUT or --verify-only")
    try:
        with open(options.phrase_file, encoding="utf-8") as f:
            kit = identity.read_kit(f.read())
        if options.to and os.path.isdir(options.to) and os.listdir(options.to):
            raise Failed(f"{options.to} is not empty; give a new folder")
        with contextlib.closing(store.Store(options.store)) as packs:
            return Reader(options, kit, packs).run()
    except Refused as err:
        print(f"reader: integrity: {err}", file=sys.stderr)
        return INTEGRITY
    except (Failed, OSError, ValueError, RuntimeError) as err:
        print(f"reader: {err}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a device may be called anything
    sys.exit(main())
