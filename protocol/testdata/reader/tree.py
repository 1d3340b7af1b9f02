"""Writing what was restored below one folder and nowhere else.

Every path is walked from the folder's descriptor, one name after the other, and
no symbolic link is followed; links are made when all else is there. So neither
names nor links that a record states lead out of the folder, and paths may be
longer than the system takes at once.
"""

import contextlib
import os

from vault import FOLDER, SYMLINK

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def split(name):
    """The names of an absolute path, POSIX or Windows, below a folder; ValueError
    if there is one that is none. A drive is a name like others."""
    if name.startswith(b"/"):
        parts = [p for p in name.split(b"/") if p]
    else:
        parts = [p for p in name.split(b"\\") if p not in (b"", b"?", b".")]
    if any(p in (b".", b"..") or b"/" in p or b"\0" in p for p in parts):
        raise ValueError("the path has a name that cannot be written")
    return parts


class Tree:
    """A folder that is filled. warnings counts, by text, metadata that the system
    did not take."""

    def __init__(self, folder):
        os.makedirs(folder, mode=0o700)  # refuses what exists
        self._root = os.open(folder, _DIRECTORY)
        self._later = []  # (parts, record): links and metadata of folders
        self.warnings = {}

    @contextlib.contextmanager
    def _folder(self, parts):
        """A descriptor of a folder, which is made if it does not exist."""
        fd = os.dup(self._root)
        try:
            for name in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=fd)
                deeper = os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    def file(self, parts, record, pieces):
        """Write a file from the pieces of its content; nothing stays of it if
        they fail."""
        with self._folder(parts[:-1]) as folder:
            fd = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            try:
                with open(fd, "wb", closefd=False) as f:
                    _write(f, record.fields.get(15, []), pieces)
                    f.truncate(record.fields[3])
                self._metadata(fd, record)
            except BaseException:
                os.unlink(parts[-1], dir_fd=folder)
                raise
            finally:
                os.close(fd)

    def link(self, parts, first):
        """Make another name of a file that was written."""
        with self._folder(first[:-1]) as source, self._folder(parts[:-1]) as folder:
            os.link(first[-1], parts[-1], src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def later(self, parts, record):
        """Take a folder or a symbolic link, to be finished when all files are there."""
        if record.type == FOLDER:
            with self._folder(parts):
                pass
        self._later.append((parts, record))

    def finish(self):
        """Make the links, then set the metadata of folders, the deepest first.
        Yields the names and errors of what failed."""
        links = [x for x in self._later if x[1].type == SYMLINK]
        folders = [x for x in self._later if x[1].type == FOLDER]
        for parts, record in links + sorted(folders, key=lambda x: -len(x[0])):
            try:
                if record.type == SYMLINK:
                    with self._folder(parts[:-1]) as folder:
                        os.symlink(record.fields[13], parts[-1], dir_fd=folder)
                        self._times(parts[-1], record, dir_fd=folder, follow_symlinks=False)
                else:
                    with self._folder(parts) as folder:
                        self._metadata(folder, record)
            except OSError as err:
                yield record.name, err
        os.close(self._root)

    def _metadata(self, fd, record):
        """Extended attributes, mode and time, in this order: the mode may forbid the
        first. Owners are left alone, and with them what only makes sense together
        with an owner: setuid, setgid, attributes of security and trusted kinds."""
        for name, value in record.fields.get(10, []):
            if name.startswith((b"user.", b"system.posix_acl_")) and hasattr(os, "setxattr"):
                self._attempt("extended attributes", os.setxattr, fd, name, value)
            else:
                self._warn("extended attributes")
        if 7 in record.fields:
            self._attempt("modes", os.fchmod, fd, record.fields[7] & 0o1777)
        self._times(fd, record)

    def _attempt(self, what, call, *arguments, **options):
        try:
            call(*arguments, **options)
        except (OSError, OverflowError):
            self._warn(what)

    def _times(self, target, record, **options):
        if 6 in record.fields:
            seconds, nanoseconds = record.fields[6]
            time = seconds * 1_000_000_000 + nanoseconds
            self._attempt("times", os.utime, target, ns=(time, time), **options)

    def _warn(self, what):
        self.warnings[what] = self.warnings.get(what, 0) + 1


def _write(f, holes, pieces):
    """Write content around holes, over which the file is not written."""
    at, holes = 0, list(zip(holes[::2], holes[1::2]))
    for piece in pieces:
        piece = memoryview(piece)
        while piece:
            while holes and holes[0][0] == at:
                at += holes.pop(0)[1]
                f.seek(at)
            n = min(len(piece), holes[0][0] - at) if holes else len(piece)
            f.write(piece[:n])
            piece, at = piece[n:], at + n
