"""Files that grow, where files cannot: a bucket holds whole objects."""

import importlib
import math
import time

from etils import epath

from simclr_jax.errors import HostError

UPLOAD_SECONDS = 5.0  # between two uploads of a file that grows; a bucket allows one a second


def check_installed(path: epath.PathLike) -> None:
    """Raises HostError where the path lies in Google's storage and its client is not installed."""
    if not str(path).startswith("gs://"):
        return
    try:
        importlib.import_module("google.cloud.storage")
    except ImportError as error:
        raise HostError(f"{path}: needs Google's client: pip install 'simclr_jax[gcs]'") from error


def is_remote(path: epath.PathLike) -> bool:
    """Whether the path lies in a bucket (gs://…)."""
    return "://" in str(path)


class GrowingObject:
    """A file to be appended to: held in memory, and uploaded whole now and then."""

    def __init__(self, path: epath.PathLike, content: bytes = b""):
        self._path = epath.Path(path)
        self._content = bytearray(content)
        self._uploaded, self._at = len(content), -math.inf  # when it was uploaded last

    def write(self, data: bytes) -> None:
        self._content += data
        if time.monotonic() - self._at > UPLOAD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Uploads what is new."""
        if len(self._content) > self._uploaded or self._at < 0:
            self._path.write_bytes(bytes(self._content))
            self._uploaded, self._at = len(self._content), time.monotonic()

    close = flush
