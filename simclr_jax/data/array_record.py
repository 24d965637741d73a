"""Random access to ArrayRecord files, with damage kept to the records that it hit."""

from collections.abc import Sequence
from typing import Any

from simclr_jax.errors import one_line
from simclr_jax.store import outage

_DAMAGED = "corrupted"  # The word in the library's message for a checksum that does not match.


class ArrayRecordReader:
    """Random access to the records of ArrayRecord files, whose library checks their checksums.

    Args:
      records: The library's source of records by index.
      name: The name of the split, for messages.
    """

    def __init__(self, records: Any, name: str):
        self._records = records
        self._name = name

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, indices: Sequence[int]) -> list[bytes | str]:
        """The records; the reason for a damaged one.

        Raises:
          HostError: The storage is out of reach.
        """
        try:
            return outage.patiently(lambda: self._read(indices), self._name)
        except RuntimeError as error:
            if len(indices) == 1:
                return [one_line(error, 200)]
            return [record for index in indices for record in self.__getitems__([index])]

    def _read(self, indices: Sequence[int]) -> list[bytes | str]:
        try:
            return self._records.__getitems__(indices)
        except RuntimeError as error:
            if _DAMAGED in str(error).lower():
                raise
            # The library raises no other type where a read fails.
            raise OSError(one_line(error)) from error
