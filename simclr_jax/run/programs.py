"""Compiled programs, which JAX keeps between commands in the user's cache.

A choice that was made otherwise stays: JAX_COMPILATION_CACHE_DIR names another folder, and
JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

import contextlib
import importlib
import os
import random
import zlib
from pathlib import Path

from etils import epy

from simclr_jax.store import user_cache

with epy.lazy_imports():
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from simclr_jax import processes
    from simclr_jax.run import progress

LIMIT_BYTES = 2**31  # The bytes of all programs, above which the longest unused ones are deleted.
SECONDS = 0.1  # The shortest compilation whose program is kept.
_FOLDER, _SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_CHECKED = "checked"  # The file whose time of change is that of the last check.
_kept: Path | None = None  # The folder of the user's cache, where `keep` has named it.
_ZSTD = b"\x28\xb5\x2f\xfd"  # The first bytes of what Zstandard has compressed.


def keep() -> None:
    """Lets JAX keep programs in the user's cache. It must be called before JAX is imported."""
    if _FOLDER in os.environ:
        return
    folder = user_cache.folder("compiled")
    if folder is not None:
        with contextlib.suppress(OSError):  # Another command may delete the same files.
            tidy(folder)
        global _kept
        _kept, os.environ[_FOLDER] = folder, str(folder)
        os.environ.setdefault(_SECONDS, str(SECONDS))


def tidy(folder: Path, limit: int = LIMIT_BYTES) -> None:
    """Deletes programs that were written in part, and the longest unused ones above a limit.

    JAX would warn of a part at every start and never replace it. Each file is read once for that.

    Args:
      folder: The folder of the programs.
      limit: The bytes of all programs.
    """
    checked = folder / _CHECKED
    since = checked.stat().st_mtime_ns if checked.exists() else 0
    checked.touch()
    found = []
    for path in folder.glob("*-cache"):
        state = path.stat()
        if state.st_mtime_ns >= since and not is_whole(path.read_bytes()):
            path.unlink()
        else:
            found.append((max(state.st_atime, state.st_mtime), state.st_size, path))
    kept = 0
    for _, size, path in sorted(found, reverse=True):
        kept += size
        if kept > limit:
            path.unlink()


def is_whole(content: bytes) -> bool:
    """Whether a file of a compiled program was written to its end.

    >>> is_whole(zlib.compress(b"program")), is_whole(zlib.compress(b"program")[:-1])
    (True, False)

    Args:
      content: The compressed program. JAX takes Zstandard where that is installed, else zlib.
    """
    try:
        if content.startswith(_ZSTD):
            importlib.import_module("zstandard").decompress(content)
        else:
            zlib.decompress(content)
    except ImportError:
        return True
    except Exception:  # Each library has an error of its own.
        return False
    return True


def share() -> None:
    """Keeps no programs in a run of several processes that have no common cache.

    JAX writes to it in process 0 alone. A process that loads a program while others compile it
    could leave them waiting for its part of the tuning on GPUs. All processes must call it
    together.
    """
    if not processes.several():
        return
    folder = jax.config.values["jax_compilation_cache_dir"]
    ours = folder is None or folder == str(_kept)
    (number,) = processes.from_primary([random.SystemRandom().randrange(2**31)])
    sign = _kept and _kept / f"shared-{number}"
    if sign and processes.is_primary():
        with contextlib.suppress(OSError):
            sign.touch()
    processes.meet("programs")
    shared = processes.all_have(sign is not None and sign.exists() if ours else True)
    if sign and processes.is_primary():
        sign.unlink(missing_ok=True)
    if ours and folder is not None and not shared:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()  # What the processes have agreed by has opened it.
        progress.note(
            "compiled programs are not kept: the processes have no common cache; "
            f"{_FOLDER} may name a folder that all of them can read"
        )
