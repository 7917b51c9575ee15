"""Text in printable ASCII, the part that all of DICOM's character sets share."""

import unicodedata

_LIKENESS = str.maketrans({
    "°": " degrees", "×": "x", "–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "≈": "about ", "±": "+/-",
    "\\": "/", "~": "-", "‘": "'", "’": "'",
    "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ø": "O", "ø": "o", "ẞ": "SS", "ß": "ss", "Þ": "Th", "þ": "th",
    "Đ": "D", "đ": "d", "Ð": "D", "ð": "d", "Ħ": "H", "ħ": "h", "ı": "i", "Ł": "L", "ł": "l", "Ŋ": "N", "ŋ": "n",
    "Ŧ": "T", "ŧ": "t",
})  # fmt: skip
"""The backslash and the tilde are replaced too: ISO_IR 13 has other characters in their place.  The letters are those of
Latin names that are no letter with an accent, which Unicode would take off."""


def plain_ascii(value: str) -> str:
    """`value` with its nearest ASCII, "?" where there is none: a report is never lost over a degree sign."""
    likened = unicodedata.normalize("NFKD", value.translate(_LIKENESS)).translate(
        _LIKENESS
    )  # a full-width backslash is one
    without_accents = "".join(c for c in likened if not unicodedata.combining(c))
    return "".join(c if " " <= c < "\x7f" or c in "\r\n" else "?" for c in without_accents)
