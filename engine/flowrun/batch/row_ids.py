"""Which row has which id, in about 15 bytes a row. A row without an id is known by its number.

Ids are compared as text: what CSV and JSON Lines hold is the same row.
"""

from array import array
from typing import Final

_LOAD: Final = 0.8
"""The share of the table that may be used: each row needs 12 bytes / ``_LOAD``."""


class Marks:
    """A set of row numbers, one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Add a number."""
        byte, bit = divmod(number, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        self._bits[byte] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        byte, bit = divmod(number, 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)


class RowIds:
    """The numbers of rows by their ids.

    Args:
        count: the number of rows in the file; there must not be more.
    """

    def __init__(self, count: int) -> None:
        self._size = int(count / _LOAD) + 8
        self._without_id = Marks()
        self._numbers = array("I")  # by slot; 0: it is free. Both tables are made for the first row that has an id.
        self._hashes = array("q")

    def add(self, row_id: str | int, number: int) -> int:
        """Add a row. If an earlier row has its id, return the number of that row, and add nothing; else 0."""
        if earlier := self.number_of(row_id):
            return earlier
        if row_id == number:
            self._without_id.add(number)
            return 0
        if not self._numbers:
            self._numbers, self._hashes = array("I", [0]) * self._size, array("q", [0]) * self._size
        slot = self._slot(str(row_id))
        self._numbers[slot], self._hashes[slot] = number, hash(str(row_id))
        return 0

    def number_of(self, row_id: str | int) -> int:
        """Return the number of the row with an id; 0 if there is none."""
        text = str(row_id)
        if self._numbers and (number := self._numbers[self._slot(text)]):
            return number
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
        return number if str(number) == text and number in self._without_id else 0

    def _slot(self, text: str) -> int:
        """Return the slot of an id, or the free one where it belongs (linear probing)."""
        wanted, size, numbers, hashes = hash(text), self._size, self._numbers, self._hashes
        slot = wanted % size
        while numbers[slot] and hashes[slot] != wanted:
            slot = (slot + 1) % size
        return slot
