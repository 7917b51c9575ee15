"""What a bundle must say of what it was trained on: a sentence for each source, and whose work is to be cited."""

from collections.abc import Sequence
from pathlib import Path

from ai.errors import BundleError
from ai.manifest import read_document

RESEARCH = "Research use; not a medical device."
"""The last sentence of each."""
_TREE = "the arteries of one real head (PLOS Comput Biol 2019, e1007073, CC BY 4.0)"
PHANTOMS_ONLY = f"Synthetic phantoms only: no patient data. {RESEARCH}"
ON_A_TREE = f"Synthetic phantoms only, half of them on {_TREE}: no patient images. {RESEARCH}"
RSNA_ONLY = f"RSNA 2025 Intracranial Aneurysm Detection data ({{modalities}}). {RESEARCH}"
PHANTOMS_AND_CUBES = f"Synthetic phantoms and cubes only, half of the cubes on {_TREE}: no patient images. {RESEARCH}"
_SECOND_STAGE = "Second stage:"


def begun_from(said: str, weights: str) -> str:
    """The sentences of a run that began with the weights of a file, from those of the run itself.

    What these learned from stands in the manifest beside them, where there is one.
    """
    path = Path(weights)
    try:
        bundle = read_document(path.parent)
        named, before = f"{bundle['name']} {bundle['version']}", str(bundle["trained_on"])
    except (BundleError, KeyError):
        return _with(said, f"Begun from the weights {path.name}, of which nothing is known.")
    first = _origin(before).partition(_SECOND_STAGE)[0].rstrip()  # the run has nothing of the second
    if first.startswith(f"{_origin(said)} Begun from "):  # trained likewise, and begun from others
        return f"{first} {RESEARCH}"
    if before == said:
        return _with(said, f"Begun from the weights of {named}, trained likewise.")
    if before in (PHANTOMS_ONLY, PHANTOMS_AND_CUBES):  # cubes are the second stage's
        return _with(said, f"Begun from the weights of {named}, which learned from phantoms only.")
    return _with(said, f"Begun from the weights of {named}: {first}")


def with_second_stage(said: str) -> str:
    """The sentences of a bundle of both stages, from those of its first."""
    if said in (PHANTOMS_ONLY, PHANTOMS_AND_CUBES):
        return PHANTOMS_AND_CUBES
    if _SECOND_STAGE in said:
        return said
    arteries = "the same arteries" if _TREE in said else _TREE
    return _with(said, f"{_SECOND_STAGE} drawn cubes, half of them on {arteries}.")


def calibrated_on(trained: Sequence[str], scans: str) -> str:
    """The sentences of bundles that became one, each once, and of the scans it was calibrated on, where those are none of them."""
    said = trained[-1]
    for each in trained[:-1]:
        said = _with(said, _origin(each))
    is_said = _origin(scans) in said or (scans == PHANTOMS_ONLY and said.startswith("Synthetic phantoms"))
    return said if is_said else _with(said, f"Calibrated on: {_origin(scans)}")


def _origin(said: str) -> str:
    """Without the last sentence."""
    return said.removesuffix(RESEARCH).rstrip()


def _with(said: str, added: str) -> str:
    """With one more sentence before the last, unless it is there."""
    return said if added in said else f"{_origin(said)} {added} {RESEARCH}"
