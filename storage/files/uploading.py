"""One file to the object store: what the store has afterwards was compared with what lies here, or nothing counts.

An object is created and never silently replaced (If-None-Match).  The store checks the sha256 that goes with it; we compare
what it answers, where that is a checksum of what it has (an ETag that is the MD5), and read the object back where it is
not.  What lies there already is read back too: what is not the same content, such as half of it, is replaced by it.
"""

import hashlib
from io import BytesIO

from storage.errors import Damaged, ObjectsAway, StorageError
from storage.files.content import content_sha256
from storage.files.folder_flushes import flush_folder
from storage.files.instances import Files
from storage.files.objects import AlreadyThere, Object, Objects
from storage.records import StoredFile


def upload(files: Files, file: StoredFile) -> Object:
    """The object store has the file whole.  Raises ObjectsAway; Damaged where the file here is not as it was written."""
    objects = files.objects
    if objects is None:
        raise StorageError("files are uploaded where [storage] objects says so")
    try:
        content = files.path(file).read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{file.path} is missing in {files.folder}; have the study sent again") from None
    if content_sha256(file.path, BytesIO(content)) != file.sha256:
        raise Damaged(f"{file.path} in {files.folder} is not what was written; have the study sent again")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        put = objects.create(file.path, content, sha256)
    except AlreadyThere:
        there, found = _read_back(objects, file)
        if content_sha256(file.path, BytesIO(found)) == file.sha256:
            return there
        put = objects.replace(file.path, content, sha256, there)
    if put.e_tag.strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest():
        return put
    there, found = _read_back(objects, file)
    if found != content:
        raise ObjectsAway(
            f"the object store {objects.bucket.url} has {file.path} otherwise than it was sent; look at the store"
        )
    return there


def secured(files: Files, file: StoredFile) -> bool:
    """Whether the file lies here whole, also after power loss: its receiver may not have come to flush it."""
    path = files.path(file)
    try:
        if not path.exists() or not files.holds(file):
            return False
        flush_folder(path)
        flush_folder(path.parent)
    except OSError:
        return False
    return True


def _read_back(objects: Objects, file: StoredFile) -> tuple[Object, bytes]:
    stream = BytesIO()
    there, _ = objects.fetch(file.path, stream, file.size_bytes)
    return there, stream.getvalue()
