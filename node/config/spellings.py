"""How vendors spell what Willis asks of a header: the defaults of [eligibility], each with its source.

A spelling that nobody has shown us in a document or in images is not `sure`: it stands here because to take it for what
it says costs little, and is the first to be doubted.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """A value, or a regular expression, and where it is known from."""

    text: str
    source: str
    is_sure: bool = True


_ENHANCED = "PS3.3 C.8.16.1.4 and Volume Based Calculation Technique (0008,9207)"
_SOMARIS = "Siemens SOMATOM images, value 4: CT_SOM5 MIP, CT_SOM5 MPR (originals: CT_SOM5 SPI, CT_SOM5 SEQ)"
_SYNGO = "Siemens syngo Multimodality Workplace VE30A, conformance statement, CT annex, value 3"
_VOLUME_VIEWER = "GE Volume Viewer, conformance statement"

NO_ORIGINAL = (
    Spelling("LOCALIZER", "PS3.3 C.8.2.1.1.1, C.8.16.1.3"),
    Spelling("MPR", f"{_SYNGO}; {_SOMARIS}"),
    Spelling("MIP", _SOMARIS),
    Spelling("MINIP", "workstations of several vendors"),
    Spelling("PROJECTION IMAGE", _SYNGO),
    Spelling("MAX IP", f"{_ENHANCED}: MAX_IP"),
    Spelling("MIN IP", f"{_ENHANCED}: MIN_IP"),
    Spelling("MAXIMUM", f"{_ENHANCED}: MAXIMUM", is_sure=False),
    Spelling("MINIMUM", f"{_ENHANCED}: MINIMUM", is_sure=False),
    Spelling("REFORMATTED", f"{_VOLUME_VIEWER}: REFORMATTED with AVERAGE and others"),
    Spelling("VOLUME RENDERING", "workstations of several vendors"),
    Spelling("VOLUME RENDER", f"{_ENHANCED}: VOLUME_RENDER"),
    Spelling("SURFACE RENDER", f"{_ENHANCED}: SURFACE_RENDER"),
    Spelling("CURVED", "Siemens: MPR CURVED", is_sure=False),
    Spelling("VRT", "Siemens: CT_SOM5 VRT", is_sure=False),
    Spelling("SSD", "Siemens: CT_SOM5 SSD, shaded surface", is_sure=False),
    Spelling("SCREEN SAVE", "GE consoles: SCREEN SAVE"),
)
"""Values of Image Type of what is no original volume; the last word of a value decides.

Not among them: ANGIO, VOLUME, CARDIAC, PERFUSION (flavors of originals, PS3.3 C.8.16.1.3), and what `DERIVED` names.
"""

DERIVED = (
    Spelling(r"\bderived\b", "PS3.3 C.7.6.1.1.2, value 1"),
    Spelling(r"\bsubtract\w*|\bmasked\b|\bresampled\b|\bfiltered\b|\bmean\b|\baddition\b|\bdivision\b", _ENHANCED),
    Spelling(r"\bmultiplication\b|\bstd.?dev\w*|\bmedian\b|\bquantity\b|\benergy.prop.wt\b", _ENHANCED, is_sure=False),
    Spelling(r"\baverage\b", f"{_VOLUME_VIEWER}: REFORMATTED, AVERAGE"),
    Spelling(r"\bbone.?remov\w*|\bbone.?free\b|\bno.?bone\b", "descriptions that workstations write"),
    Spelling(r"\biodine\b|\bvnc\b|\bvmi\b|\bmono.?energ\w*", "spectral CT: iodine, virtual plain, monoenergetic"),
    Spelling(r"\bmono.?e\b|\bmixed\b|\bf_0\.\d", "Siemens dual energy: Mono+, mixed, F_0.5", is_sure=False),
)
"""Regular expressions on Image Type and Series Description, "_" read as a space, of what was made from other images."""

SHARP = (
    Spelling(
        r"^[bhijqu][a-z]?[5-9]\d", "Siemens: family, for what, resolution: B60f, Hr68h, Br64d, Qr59, I70f, U90u, Ur77"
    ),
    Spelling(r"^s[89]0s$", "Siemens SOMATOM Sensation, operating instructions: S80s, S90s"),
    Spelling(r"bone", "GE: BONE, BONEPLUS, HD BONE; Canon by name"),
    Spelling(r"edge", "GE: EDGE, HD EDGE"),
    Spelling(r"lung", "GE: LUNG; Canon by name"),
    Spelling(r"sharp", "Canon and others, by name", is_sure=False),
    Spelling(r"^ultra", "GE: ULTRA", is_sure=False),
    Spelling(r"^y[a-f]$", "Philips: YA to YF"),
    Spelling(r"^l$", "Philips: L, lung", is_sure=False),
    Spelling(r"^fc[358]\d", "Toshiba and Canon: FC30 to FC35 bone, FC50 to FC59 lung, FC80 to FC89 inner ear"),
    Spelling(r"^fc[67]\d", "Toshiba and Canon", is_sure=False),
)
"""Regular expressions, in any case, on each value of Convolution Kernel of bone and lung kernels."""


def texts(spellings: tuple[Spelling, ...]) -> tuple[str, ...]:
    """The spellings alone."""
    return tuple(each.text for each in spellings)
