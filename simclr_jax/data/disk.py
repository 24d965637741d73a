"""The files below a folder on a disk: its folders are listed side by side, and once.

What a large folder holds is kept in the user's cache. A folder in it is listed again where its
times of change are others, or where it has links, since their targets change without it. Only names
are kept, no sizes: a file that is written again in its place does not change its folder's times.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

from etils import epath

from simclr_jax.errors import ArgumentError
from simclr_jax.store import files, user_cache

FEW_FILES = 10_000  # The number of files up to which a folder is not kept: it is listed at once.
KEPT = 16  # The number of folders of images whose listings are kept, the latest used ones.
# The age from which on a folder's times are trusted. Of two changes within a tick of the file
# system's clock, which may also be another machine's, the second one would not show.
SETTLED_SECONDS = 60.0
# The file systems whose folders are known to change their times with what is in them. That of a
# mounted bucket, for one, may stand still.
_TIMED = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"),
    *("nfs", "nfs4", "lustre", "ceph"),
}
# Folders that systems add, besides those that begin with a point.
_HIDDEN = frozenset(("@eaDir", "__MACOSX", "$RECYCLE.BIN"))
_CLASS_DEPTH = 3  # The depth of folders that may be classes, as in DATA/train/cat.
_CLOSED = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}  # Faults of one folder.
_Identity = tuple[int, int]  # The device and the number of a folder, whatever its path.
_log = logging.getLogger(__name__)


class Contents(NamedTuple):
    """What a folder holds.

    Attributes:
      files: The names of its files.
      folders: The names of its folders, without the hidden ones.
      odd: The number of broken links, and of what is neither a file nor a folder.
      links: Whether any of them is a link.
    """

    files: list[str]
    folders: list[str]
    odd: int
    links: bool


def below(root: str, left_out: collections.Counter[str], pool: Executor) -> Iterator[str]:
    """Yields the relative paths of all files below a folder, through links.

    In a class each folder counts once: the number of paths through folders that link to each other
    grows with the factorial of theirs.

    Args:
      root: The path of the folder.
      left_out: The counts of what is left out, to which is added.
      pool: The threads that list folders.

    Raises:
      ArgumentError: A folder cannot be read.
    """
    kept = Kept(root)
    first, contents = _list(root, "", kept)
    pending: list[tuple[str, Contents, tuple[_Identity, ...]]] = [("", contents, (first,))]
    entered: set[tuple[str, _Identity]] = set()
    places: dict[_Identity, str] = {}
    circles, again, twice = [], [], []
    while pending:
        folder, contents, above = pending.pop()
        prefix = f"{folder}/" if folder else ""
        yield from (prefix + name for name in contents.files)
        if contents.odd:
            left_out["broken links or no files"] += contents.odd
        inside = [prefix + name for name in sorted(contents.folders)]
        found = pool.map(lambda path: _list(root, path, kept), inside)
        # Which of several paths counts is settled by their order.
        for path, (identity, contents) in zip(inside, found, strict=True):
            known = "/".join(path.split("/")[:_CLASS_DEPTH]), identity
            if identity in above:
                circles.append(path)
            elif known in entered:
                again.append(path)
            else:
                entered.add(known)
                pending.append((path, contents, (*above, identity)))
                if places.setdefault(identity, path) != path:
                    twice.append((places[identity], path))
    kept.write()
    if circles:
        text = "%r links to a folder above it, and is not followed (%d such)"
        _log.warning(text, circles[0], len(circles))
    if again:
        text = "%r is a folder that its class has in another place, and is left out (%d such)"
        _log.warning(text, again[0], len(again))
    if twice:
        text = "%r and %r are the same folder (%d such by links): its images count each time"
        _log.warning(text, *twice[0], len(twice))


def _list(root: str, path: str, kept: Kept) -> tuple[_Identity, Contents]:
    """What identifies a folder, and what it holds."""
    place = os.path.join(root, path)
    try:
        state = os.stat(place)
        contents = kept.contents(path, state)
        if contents is None:
            listed_at = time.time()
            contents = _scan(place)
            kept.add(path, state, contents, listed_at)
    except OSError as error:
        if error.errno in _CLOSED:
            reason = f"cannot be read ({error.strerror})"
            raise ArgumentError("directory", error.filename or place, reason) from error
        raise
    return (state.st_dev, state.st_ino), contents


def _scan(place: str) -> Contents:
    """What a folder holds, from the disk."""
    found, folders, odd, links = [], [], 0, False
    with os.scandir(place) as entries:
        for entry in entries:
            is_folder, is_file = _is(entry)
            links = links or entry.is_symlink()
            if is_file:
                found.append(entry.name)
            elif not is_folder:
                odd += 1
            elif not is_hidden(entry.name):
                folders.append(entry.name)
    return Contents(found, folders, odd, links)


def _is(entry: os.DirEntry) -> tuple[bool, bool]:
    """Whether an entry is a folder and whether it is a file, or a link to one."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # A link that leads back to itself.
            return False, False
        raise


def is_hidden(name: str) -> bool:
    """Whether a file or a folder of this name is left out.

    >>> is_hidden(".git"), is_hidden("@eaDir"), is_hidden("cats")
    (True, True, False)
    """
    return name.startswith(".") or name in _HIDDEN


def has_hidden(path: str) -> bool:
    """Whether a file or any folder of a path is hidden.

    >>> has_hidden("a/.b/c.jpg"), has_hidden("a/b.c.jpg")
    (True, False)
    """
    return "/." in f"/{path}" or not _HIDDEN.isdisjoint(path.split("/"))


class Kept:
    """The folders below a folder whose contents are kept, in a file of the user's cache.

    Args:
      root: The path of the folder.
    """

    def __init__(self, root: str):
        folder = user_cache.folder("listings")
        name = hashlib.sha256(files.as_bytes(os.path.realpath(root))).hexdigest()[:32]
        self._path = folder and epath.Path(folder / f"{name}.json.z")
        self._known: dict[str, list[Any]] = {}
        self._found: dict[str, list[Any]] = {}
        self._changed, self._files = False, 0
        self._device = os.stat(root).st_dev if _file_system(root) in _TIMED else None
        if self._path is not None:
            # A file that is missing, damaged or of another version tells nothing.
            with contextlib.suppress(OSError, ValueError, zlib.error):
                self._known = dict(json.loads(zlib.decompress(self._path.read_bytes())))

    def contents(self, path: str, state: os.stat_result) -> Contents | None:
        """What a folder holds; None where that is not known, or it may have changed."""
        try:
            times, *found = self._known[path]
            contents = Contents(*found)
        except (KeyError, TypeError, ValueError):
            return None
        if times != _times(state):
            return None
        self._found[path] = self._known[path]
        self._files += len(contents.files)
        return contents

    def add(self, path: str, state: os.stat_result, contents: Contents, listed_at: float) -> None:
        """Keeps what a folder holds, where a change will show.

        Args:
          path: The path of the folder.
          state: Its state before it was listed.
          contents: What it holds.
          listed_at: The time at which it was listed, in seconds since 1970.
        """
        self._files += len(contents.files)
        settled = max(state.st_mtime, state.st_ctime) + SETTLED_SECONDS < listed_at
        if settled and not contents.links and state.st_dev == self._device:
            self._found[path] = [_times(state), *contents]
            self._changed = True

    def write(self) -> None:
        """Writes what was found, where it is large and differs from what is kept."""
        if self._path is None or self._files <= FEW_FILES:
            return
        with contextlib.suppress(OSError):  # The disk may be full, or another command does it.
            if self._changed or len(self._found) != len(self._known):
                files.write(self._path, zlib.compress(json.dumps(self._found).encode(), level=1))
            os.utime(self._path)
            every = sorted(self._path.parent.glob("*.json.z"), key=lambda path: path.stat().mtime)
            for path in every[:-KEPT]:
                path.unlink()


def _times(state: os.stat_result) -> list[int]:
    """What differs where a folder has changed.

    A copy can set the time of its last modification, and not that of its last change.
    """
    return [state.st_ino, state.st_mtime_ns, state.st_ctime_ns]


def _file_system(root: str) -> str | None:
    """The kind of file system that a folder is on, as Linux names it; None: not known."""
    path = os.path.realpath(root)
    found: tuple[str, str | None] = "", None
    with contextlib.suppress(OSError), open("/proc/self/mounts") as mounts:
        for line in mounts:
            place, kind = line.split()[1:3]
            place = place.replace("\\040", " ").rstrip("/")
            if len(place) >= len(found[0]) and f"{path}/".startswith(f"{place}/"):
                found = place, kind
    return found[1]
