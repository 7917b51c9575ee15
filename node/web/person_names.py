"""The name of the person behind an account, as it is on what goes back to a PACS."""

from unicodedata import normalize

from node.errors import Refused
from node.results.plain_ascii import plain_ascii

_MOST_CHARACTERS = 64
_MOST_PARTS = 5


def composed_person_name(whole: str = "", family: str = "", given: str = "") -> str:
    """`Doe^Jane` of what a provider says of a person, with what is known of its parts; "" where that makes none.

    Of the `whole` name alone the last word is taken for the family's, or what stands before a comma.
    """
    if not (family.strip() and given.strip()):
        before, comma, after = whole.partition(",")
        given, _, family = (after, "", before) if comma else whole.strip().rpartition(" ")
    parts = [" ".join(normalize("NFKC", part).replace("^", " ").split()) for part in (family, given)]
    try:
        return checked_person_name("^".join(parts)) if all(parts) else ""
    except Refused:
        return ""


def checked_person_name(name: str) -> str:
    """The name as DICOM writes it (PN): family^given^middle^prefix^suffix.  Raises Refused when it can be none.

    What only looks like another character (a full-width backslash) is that character: reports write it so.
    """
    plain = normalize("NFKC", name).strip()
    parts = plain.split("^")
    if not plain:
        return ""
    if len(parts) < 2 or len(parts) > _MOST_PARTS or not parts[0].strip():
        raise Refused(f"a person's name is written family^given, Doe^Jane, and not {plain!r}")
    if len(plain) > _MOST_CHARACTERS or any(each in plain for each in "=\\") or not plain.isprintable():
        raise Refused(f"a person's name has at most {_MOST_CHARACTERS} characters, and no = or backslash")
    latin = plain_ascii(plain)
    if "?" in latin or not latin.partition("^")[0].strip() or len(latin) > _MOST_CHARACTERS:
        raise Refused(f"{plain!r} cannot be written in Latin letters, which every report takes; write it in those")
    return plain
