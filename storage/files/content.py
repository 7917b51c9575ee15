"""What a file's sha256 is of: all bytes of a report; of an instance its dataset, which is what the sender sent.

An instance's file meta is ours: another sender of the same dataset may have left its own before it.
"""

import hashlib
import os
from typing import BinaryIO

_META_LENGTH_AT = 140  # preamble, prefix, then the element header of (0002,0000)
_PIECE_BYTES = 1 << 20


def content_sha256(path: str, stream: BinaryIO) -> str:
    """Of the file that has this path relative to the root, whatever is in it.  Reads the whole `stream`, in pieces."""
    digest = hashlib.sha256()
    if path.startswith("instances/"):
        group_length = stream.read(_META_LENGTH_AT + 4)[_META_LENGTH_AT:]
        stream.seek(int.from_bytes(group_length, "little"), os.SEEK_CUR)
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()
