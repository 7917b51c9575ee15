"""Numbers before nouns in what people read, and values of headers without what means nothing in them."""


def counted(count: int, one: str, many: str = "") -> str:
    """`1 slice`, `2 slices`.  `many` where it is not `one` with an s: `counted(n, "delivery is", "deliveries are")`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def unpadded(text: str) -> str:
    """The value without the padding that its VR allows (PS3.5 6.2): as all values of headers are compared.

    Spaces before and after it say nothing in AE, CS, DS, IS, LO, PN and SH; those after it, and NUL, in none.
    """
    return text.strip("\0 ")
