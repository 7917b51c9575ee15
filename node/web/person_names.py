"""The name of the person behind an account, as it is on what goes back to a PACS."""

from node.errors import Refused
from node.results.plain_ascii import plain_ascii

_MOST_CHARACTERS = 64
_MOST_PARTS = 5


def checked_person_name(name: str) -> str:
    """The name as DICOM writes it (PN): family^given^middle^prefix^suffix.  Raises Refused when it can be none."""
    plain = name.strip()
    parts = plain.split("^")
    if not plain:
        return ""
    if len(parts) < 2 or len(parts) > _MOST_PARTS or not parts[0].strip():
        raise Refused(f"a person's name is written family^given, Doe^Jane, and not {plain!r}")
    if len(plain) > _MOST_CHARACTERS or any(each in plain for each in "=\\") or not plain.isprintable():
        raise Refused(f"a person's name has at most {_MOST_CHARACTERS} characters, and no = or backslash")
    if "?" in plain_ascii(plain):
        raise Refused(f"{plain!r} cannot be written in Latin letters, which every report takes; write it in those")
    return plain
