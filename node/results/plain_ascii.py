"""Text in printable ASCII, the part that all of DICOM's character sets share."""

import unicodedata

_LIKENESS = str.maketrans({
    "°": " degrees", "×": "x", "–": "-", "—": "-", "−": "-", "≥": ">=", "≤": "<=", "≈": "about ", "±": "+/-",
    "\\": "/", "~": "-",
})  # fmt: skip
"""The backslash and the tilde are replaced too: ISO_IR 13 has other characters in their place."""


def plain_ascii(value: str) -> str:
    """`value` with its nearest ASCII, "?" where there is none: a report is never lost over a degree sign."""
    likened = unicodedata.normalize("NFKD", value.translate(_LIKENESS)).translate(
        _LIKENESS
    )  # a full-width backslash is one
    without_accents = "".join(c for c in likened if not unicodedata.combining(c))
    return "".join(c if " " <= c < "\x7f" or c in "\r\n" else "?" for c in without_accents)
