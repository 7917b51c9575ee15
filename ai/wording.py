"""Numbers before nouns, in what people read."""


def counted(count: int, one: str, many: str = "") -> str:
    """`1 slice`, `2 slices`.  `many` where it is not `one` with an s: `counted(n, "delivery is", "deliveries are")`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
