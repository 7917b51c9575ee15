"""multipart/related as DICOMweb has it (RFC 2046 5.1, RFC 2387, PS3.18 8.7.1), and the files in it.  Pure."""

from collections.abc import Iterable, Iterator
from email.message import Message
from io import BytesIO

from pydicom import dcmread

_META_AT = 132
_LENGTH_END = 144
"""Where the value of File Meta Information Group Length ends, which says how long the rest of the group is."""


class Truncated(Exception):
    """The closing delimiter did not come: the last part may lack its end."""


def boundary_of(content_type: str) -> str | None:
    """The boundary that a Content-Type states; None where it is no multipart type."""
    message = Message()
    message["Content-Type"] = content_type
    return message.get_boundary() if message.get_content_maintype() == "multipart" else None


def body_of(content: bytes, boundary: str) -> bytes:
    """The body of one part that is a DICOM file."""
    return b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n--%b--\r\n" % (
        boundary.encode(), content, boundary.encode(),
    )  # fmt: skip


def parts(chunks: Iterable[bytes], boundary: str) -> Iterator[bytearray]:
    """The content of each part, as soon as it is whole, however the body was cut into `chunks`.  Raises Truncated."""
    delimiter, data = b"\r\n--" + boundary.encode(), bytearray(b"\r\n")  # the first one may lack its line break
    searched, is_preamble = 0, True
    for chunk in chunks:
        data += chunk
        while (end := data.find(delimiter, searched)) >= 0:
            after = end + len(delimiter)
            if len(data) < after + 2:
                break
            if not is_preamble:
                yield data[data.find(b"\r\n\r\n", 0, end) + 4 : end]
            if data[after : after + 2] == b"--":
                return
            del data[:after]
            searched, is_preamble = 0, False
        searched = max(0, len(data) - len(delimiter) - 1)
    raise Truncated


def unpacked(file: bytearray) -> tuple[str, str, str, memoryview]:
    """SOP class UID, SOP Instance UID, transfer syntax UID and dataset of a DICOM file (PS3.10 7.1).

    Raises ValueError when it is none.
    """
    if file[_META_AT - 4 : _META_AT + 8] != b"DICM\x02\0\0\0UL\x04\0":
        raise ValueError("no DICOM file")
    start = _LENGTH_END + int.from_bytes(file[_LENGTH_END - 4 : _LENGTH_END], "little")
    try:
        meta = dcmread(BytesIO(file[:start])).file_meta
        kind = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
    except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
        raise ValueError("no File Meta Information that can be read") from None
    return *kind, memoryview(file)[start:]
