"""Walks through a dataset as it arrives: no I/O, memory that does not grow with the dataset.

It finds the top-level elements that are wanted, where the pixels begin, and whether the dataset is whole (PS3.5 7).
Sequences and fragments of undefined length are walked item by item; whatever has a length is stepped over.
"""

import zlib
from collections.abc import Iterator, Set
from struct import Struct
from typing import NamedTuple

LONGEST_VALUE_BYTES = 16_384
DEEPEST_NESTING = 64
INFLATED_STEP_BYTES = 65_536
ANYWAY_BYTES, MOST_TIMES = 64 << 20, 100
"""To how much a deflated dataset may inflate, and to how many times its length; images do three or four times."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_VRS = frozenset((
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
))  # fmt: skip
_HEADER_BYTES = 12


class Malformed(ValueError):
    """The bytes are no dataset.  The message, at most 64 characters, holds nothing of them."""


class _Element(NamedTuple):
    tag: int
    length: int
    header_bytes: int
    implicit_inside: bool


class Elements:
    """The top-level elements of one dataset: `feed` the bytes in pieces of any size, then `finish`."""

    def __init__(
        self, implicit: bool, little: bool, wanted: Set[int], pixels: Set[int], inflation: "Inflation | None" = None
    ) -> None:
        """`wanted` tags are captured; the first of `pixels` ends the header.  `inflation`: of a deflated dataset."""
        self._inflation = inflation
        self._implicit, self._wanted, self._pixels = implicit, wanted, pixels
        order = "<" if little else ">"
        self._unpack_explicit = Struct(f"{order}HH2sH").unpack_from
        self._unpack_implicit = Struct(f"{order}HHL").unpack_from
        self._unpack_length = Struct(f"{order}L").unpack_from
        self._first = True
        self._rest = bytearray()
        self._wait_for = 0
        self._skip = 0
        # What we are in, innermost last: True for an item (of undefined length), False for a sequence or fragments.
        self._inside: list[bool] = []
        self._implicit_inside: list[bool] = []
        self.captured: dict[int, bytes] = {}
        """The wanted elements by their tags, as they came."""
        self.has_pixels = False
        self.header_is_complete = False
        self._is_whole = False

    def feed(self, data: bytes | memoryview) -> None:
        """`data` follows what was fed before.  Raises Malformed."""
        for piece in self._inflation.pieces(data) if self._inflation else (data,):
            self._feed(piece)

    def _feed(self, data: bytes | memoryview) -> None:
        if self._is_whole:
            return
        size = len(data)
        if self._skip:
            stepped = min(self._skip, size)
            self._skip -= stepped
            if stepped == size:
                return
            data = memoryview(data)[stepped:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wait_for:
                return
            data, self._rest = bytes(self._rest), bytearray()
        self._wait_for = 0
        at = self._walk(data)
        if not self._is_whole:
            self._rest += memoryview(data)[at:]

    def finish(self) -> None:
        """Nothing follows.  Raises Malformed when the dataset is truncated."""
        if self._inflation:
            self._inflation.finish()
        pixels_are_whole = self.has_pixels and not self._inside and not self._skip
        at_a_boundary = not (self._rest or self._skip or self._inside)
        if not (self._is_whole or pixels_are_whole or at_a_boundary):
            raise Malformed("the dataset is truncated")
        self.header_is_complete = True

    def _walk(self, data: bytes | memoryview) -> int:
        """Where the first element begins that is not there whole; beyond the end are bytes to skip."""
        at, size = 0, len(data)
        while not self._is_whole:
            if self.has_pixels and not self._inside:
                self._is_whole = True
                break
            if not (self._inside or self._first):
                at = self._step_over_short(data, at, size)
            element = self._element(data, at, size)
            if element is None:
                break
            step = self._enter(element, data, at, size)
            if step < 0:
                break
            at += step
            if at > size:
                self._skip = at - size
                return size
        return at

    def _step_over_short(self, data: bytes | memoryview, at: int, size: int) -> int:
        """Where the first element of the top level begins that needs `_element` and `_enter`.

        Most do not: they have a length of 16 bits, and are there whole.  Of these there are a hundred in every image.
        """
        unpack, wanted, pixels = self._unpack_explicit, self._wanted, self._pixels
        while not self._implicit and size - at >= 8:
            group, number, vr, length = unpack(data, at)
            tag, end = group << 16 | number, at + 8 + length
            if vr not in _SHORT_VRS or group == 0xFFFE or tag in pixels or end > size:
                break
            if tag in wanted:
                if length > LONGEST_VALUE_BYTES:
                    break
                self.captured[tag] = bytes(data[at:end])
            at = end
        return at

    def _enter(self, element: _Element, data: bytes | memoryview, at: int, size: int) -> int:
        """How many bytes to step over; -1 to wait for more."""
        tag, length, header_bytes, implicit_inside = element
        if tag >> 16 == 0xFFFE:
            return self._delimit(tag, length)
        if self._inside and not self._inside[-1]:
            raise Malformed("a sequence holds something that is no item")
        if not self._inside:
            if tag in self._pixels:
                self.has_pixels = self.header_is_complete = True
            elif tag in self._wanted and length != _UNDEFINED:
                if length > LONGEST_VALUE_BYTES:
                    raise Malformed("a value of the header is too long")
                if at + header_bytes + length > size:
                    self._wait_for = header_bytes + length
                    return -1
                self.captured[tag] = bytes(data[at : at + header_bytes + length])
        if length == _UNDEFINED:
            self._open(False, implicit_inside)
            return header_bytes
        return header_bytes + length

    def _delimit(self, tag: int, length: int) -> int:
        """Items and delimiters, which have neither VR nor, the delimiters, a value (PS3.5 7.5)."""
        in_item = bool(self._inside) and self._inside[-1]
        in_sequence = bool(self._inside) and not self._inside[-1]
        if tag == _ITEM and in_sequence:
            if length == _UNDEFINED:
                self._open(True, self._implicit_inside[-1])
                return 8
            return 8 + length
        if (tag == _SEQUENCE_END and in_sequence) or (tag == _ITEM_END and in_item):
            self._inside.pop()
            self._implicit_inside.pop()
            return 8
        raise Malformed("an item or delimiter is out of place")

    def _open(self, item: bool, implicit_inside: bool) -> None:
        if len(self._inside) >= DEEPEST_NESTING:
            raise Malformed("sequences are nested too deeply")
        self._inside.append(item)
        self._implicit_inside.append(implicit_inside)

    def _element(self, data: bytes | memoryview, at: int, size: int) -> _Element | None:
        """The element that begins at `at`; None when its header is not there whole."""
        if size - at < 8:
            return None
        group, number, length = self._unpack_implicit(data, at)
        if group == 0xFFFE:
            return _Element(group << 16 | number, length, 8, False)
        implicit = self._implicit_inside[-1] if self._implicit_inside else self._implicit
        if self._first:
            # As pydicom does: some senders announce the one and send the other.
            self._first = False
            implicit = self._implicit = not _is_vr(bytes(data[at + 4 : at + 6]))
        if not implicit:
            group, number, vr, short = self._unpack_explicit(data, at)
            if vr in _LONG_VRS:
                if size - at < _HEADER_BYTES:
                    return None
                (length,) = self._unpack_length(data, at + 8)
                return _Element(group << 16 | number, length, 12, vr == b"UN")
            if _is_vr(vr):
                return _Element(group << 16 | number, short, 8, False)
        return _Element(group << 16 | number, length, 8, True)


class Inflation:
    """Inflates a deflated dataset in small steps, and only up to a limit.

    Whoever reads the file later inflates it whole: a few bytes must not become gigabytes.
    """

    def __init__(self, limit_bytes: int) -> None:
        """More than `limit_bytes` are refused, and beyond `ANYWAY_BYTES` more than `MOST_TIMES` what came."""
        self._limit_bytes = limit_bytes
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._deflated_bytes = self._inflated_bytes = 0

    def pieces(self, data: bytes | memoryview) -> Iterator[bytes]:
        """What `data`, which follows what was given before, inflates to.  Raises Malformed."""
        self._deflated_bytes += len(data)
        while not self._inflater.eof:
            try:
                piece = self._inflater.decompress(data, INFLATED_STEP_BYTES)
            except zlib.error:
                raise Malformed("the deflated dataset is damaged") from None
            data = self._inflater.unconsumed_tail
            self._inflated_bytes += len(piece)
            if self._inflated_bytes > max(ANYWAY_BYTES, MOST_TIMES * self._deflated_bytes):
                raise Malformed("the deflated dataset inflates too far")
            if self._inflated_bytes > self._limit_bytes:
                raise Malformed("the deflated dataset is larger than 2 GiB")
            if piece:
                yield piece
            elif not data:
                return

    def finish(self) -> None:
        """Nothing follows.  Raises Malformed when the end is not there."""
        if not self._inflater.eof:
            raise Malformed("the deflated dataset is truncated")


def _is_vr(two: bytes) -> bool:
    return len(two) == 2 and 0x41 <= two[0] <= 0x5A and 0x41 <= two[1] <= 0x5A
