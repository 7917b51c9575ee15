"""What a scanner's analyses measured over the time, as SVG: each block's median or share over the range of the baseline."""

from collections.abc import Sequence
from html import escape
from statistics import mean, quantiles

from node.rules.drift import BLOCK, NUMBERS, SHARES, baseline_of, usual_kernel
from storage.records import Measured

WIDTH, STRIP, LEFT = 900, 80, 190


def drift_picture(name: str, cases: Sequence[Measured], weeks: float) -> str:
    """An SVG with one strip for each measure; blocks outside the middle 90 % of the baseline are red."""
    begun = baseline_of(cases, weeks) or len(cases)
    strips = []
    for what, value in NUMBERS.items():
        known = [value(case) for case in cases]
        of_baseline = [each for each in known[:begun] if each is not None]
        if len(of_baseline) > 1:
            cuts = quantiles(of_baseline, n=20)
            blocks = [_middle([each for each in block if each is not None]) for block in _blocks(known)]
            strips.append((what, cuts[0], cuts[-1], blocks))
    usual = usual_kernel(cases[:begun])
    for what, has in SHARES.items():
        shares = [mean(has(case, usual) for case in block) for block in _blocks(cases)]
        strips.append((what, 0.0, max(shares[: max(1, begun // BLOCK)], default=1.0), list(shares)))
    name = "".join(letter if letter.isprintable() else "?" for letter in name)  # a header's; XML has no ESC
    height = 40 + STRIP * len(strips)
    body = "".join(_strip(30 + STRIP * row, *strip) for row, strip in enumerate(strips))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">'
        f'<title>{escape(name)}</title><rect width="100%" height="100%" fill="#fff"/><text x="8" y="20">{escape(name)}: '
        f"{len(cases)} cases, blocks of {BLOCK}; grey: the baseline's middle 90 %</text>{body}</svg>\n"
    )


def _blocks(values: Sequence[object]) -> list[list]:  # type: ignore[type-arg]
    return [list(values[at : at + BLOCK]) for at in range(0, len(values) - BLOCK + 1, BLOCK)]


def _middle(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _strip(top: int, what: str, low: float, high: float, blocks: Sequence[float | None]) -> str:
    known = [each for each in blocks if each is not None] or [0.0]
    least, most = min(low, *known), max(high, *known)
    span = (most - least) or 1.0

    def y(value: float) -> float:
        return top + (STRIP - 16) * (1 - (value - least) / span)

    step = (WIDTH - LEFT - 20) / max(1, len(blocks))
    dots = "".join(
        f'<circle cx="{LEFT + step * (number + 0.5):.1f}" cy="{y(value):.1f}" r="3" '
        f'fill="{"#1f5fa8" if low <= value <= high else "#b3261e"}"/>'
        for number, value in enumerate(blocks)
        if value is not None
    )
    band = f'<rect x="{LEFT}" y="{y(high):.1f}" width="{WIDTH - LEFT - 20}" height="{y(low) - y(high):.1f}" fill="#e6e6e6"/>'
    named = f'<text x="8" y="{top + 30}">{escape(what)}</text>'
    return f'{band}{named}<text x="8" y="{top + 48}" fill="#555">{low:.3g} to {high:.3g}</text>{dots}'
