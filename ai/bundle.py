"""A model bundle: a folder with `manifest.json` and one or more safetensors files, checked before it is used.

The manifest holds everything that the weights depend on, so that a bundle cannot be run with the wrong spacing, windows,
threshold or calibration.  Weights are safetensors: no code is ever unpickled.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ai.cube_net import CubeNet, CubeSettings
from ai.decode import Calibration, Platt
from ai.errors import BundleError
from ai.findings import MAX_LESIONS
from ai.inference import Tiling
from ai.manifest import DEFAULT_BUNDLE, MANIFEST, read_document, sha256_of
from ai.naming import NamingNet, NamingSettings
from ai.parts import Cubes, Fusion, Naming, SecondStage, check_names
from ai.preprocess import Preprocessing
from ai.second_stage import FusionNet, FusionSettings, ShapeNet, ShapeSettings
from ai.unet import UNet, UNetSettings

T = TypeVar("T")
N = TypeVar("N", UNet, ShapeNet, FusionNet, CubeNet, NamingNet)

FORMAT = 3
"""In format 1 the calibration of the locations was fitted to other scores; format 2 had one operating point and one stage."""
_READ = (2, FORMAT)
ADDED_LATER = (
    "preprocessing.coordinates",
    "notify_threshold",
    "second_stage",
    "second_stage.place_weights",
    "second_stage.place_limit",
    "second_stage.candidates",
    "second_stage.around",
    "second_stage.fusion",
    "second_stage.cubes",
    "second_stage.naming",
    "second_stage.shape.layers",
)
"""Keys that older manifests may lack: their defaults are what older bundles meant."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    `threshold`: the probability from which a lesion is reported.  `notify_threshold`: from which a scan is worth an alert;
    not below `threshold`, and the same where a bundle has but one.  `trained_on`: a sentence for people.  `weights_sha256`:
    file name → digest; several files are an ensemble.  `figures`: measured before shipping, on the data they name.
    """

    name: str
    version: str
    trained_on: str
    network: UNetSettings
    preprocessing: Preprocessing
    tiling: Tiling
    calibration: Calibration
    threshold: float
    weights_sha256: dict[str, str]
    figures: dict[str, float]
    notify_threshold: float | None = None
    second_stage: SecondStage | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if not self.threshold <= self.notify_from < 1.0:
            raise ValueError(f"notify_threshold must lie between threshold and 1, got {self.notify_threshold}")
        check_names(self.weights_sha256)
        if self.network.in_channels != self.preprocessing.channel_count:
            raise ValueError(
                f"the network reads {self.network.in_channels} channels, preprocessing makes {self.preprocessing.channel_count}"
            )

    @property
    def notify_from(self) -> float:
        """The probability from which a scan is worth an alert."""
        return self.threshold if self.notify_threshold is None else self.notify_threshold

    @property
    def candidates(self) -> int:
        """So many of the first stage's peaks count at most."""
        return MAX_LESIONS if self.second_stage is None else self.second_stage.candidates


@dataclass(frozen=True, eq=False)
class Bundle:
    """A manifest and its networks, on the CPU and in evaluation mode; `second` has those of the second stage, if any.

    `sha256`: as `ai.manifest.sha256_of` has it of the file; "" where it was read from none.  `precision`: of a pass, "float32", or
    "auto" for what `ai.device.passes_in_bfloat16` chooses.
    """

    manifest: Manifest
    networks: tuple[UNet, ...]
    second: tuple[ShapeNet, ...] = ()
    fusion: tuple[FusionNet, ...] = ()
    cubes: tuple[CubeNet, ...] = ()
    naming: tuple[NamingNet, ...] = ()
    sha256: str = ""
    precision: str = "float32"

    def __post_init__(self) -> None:
        stage = self.manifest.second_stage
        parts = (stage, stage and stage.fusion, stage and stage.cubes, stage and stage.naming)
        networks = (self.second, self.fusion, self.cubes, self.naming)
        if [bool(part) for part in networks] != [part is not None for part in parts]:
            raise ValueError("networks of a second stage need a manifest that describes them, and the other way round")


def load_bundle(
    folder: Path | str = DEFAULT_BUNDLE, flip: bool = False, precision: str = "float32", *, any_format: bool = False
) -> Bundle:
    """Return the bundle in a folder, every file checked against its digest.  Raises BundleError.

    `flip`: read the mirrored region as well, whatever the manifest says.  `precision`: as `Bundle` has it.  `any_format`: for
    who calibrates it anew.
    """
    folder = Path(folder)
    document = read_document(folder)
    sha256 = sha256_of(document)
    manifest = _checked(folder / MANIFEST, document, any_format)
    networks = _filled(folder, manifest.weights_sha256, lambda: _last(UNet(manifest.network)))
    second: tuple[ShapeNet, ...] = ()
    fusion: tuple[FusionNet, ...] = ()
    cubes: tuple[CubeNet, ...] = ()
    naming: tuple[NamingNet, ...] = ()
    if (stage := manifest.second_stage) is not None:
        second = _filled(folder, stage.weights_sha256, lambda: ShapeNet(stage.shape))
        if (fuses := stage.fusion) is not None:
            fusion = _filled(folder, fuses.weights_sha256, lambda: FusionNet(fuses.network))
        if (looks := stage.cubes) is not None:
            cubes = _filled(folder, looks.weights_sha256, lambda: _last(CubeNet(looks.network)))
        if (names := stage.naming) is not None:
            naming = _filled(folder, names.weights_sha256, lambda: NamingNet(names.network))
    if flip:
        manifest = replace(manifest, tiling=replace(manifest.tiling, flip=True))
    return Bundle(manifest, networks, second, fusion, cubes, naming, sha256, precision)


def read_manifest(folder: Path | str, *, any_format: bool = False) -> Manifest:
    """Return a bundle's manifest without touching its weights.  Raises BundleError."""
    return _checked(Path(folder) / MANIFEST, read_document(folder), any_format)


def _checked(path: Path, document: dict[str, Any], any_format: bool) -> Manifest:
    document = dict(document)
    written = document.pop("format", None)
    if written == 1 and not any_format:
        raise BundleError(f"{path} is of format 1, not {FORMAT}: calibrate it anew with `python -m training.calibrate`")
    if written != 1 and written not in _READ:
        raise BundleError(f"{path} is not of format {FORMAT}: use a bundle made for this version of Willis")
    try:
        return _manifest(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error


def save_bundle(
    folder: Path,
    manifest: Manifest,
    networks: tuple[UNet, ...],
    second: tuple[ShapeNet, ...] = (),
    fusion: tuple[FusionNet, ...] = (),
    cubes: tuple[CubeNet, ...] = (),
    naming: tuple[NamingNet, ...] = (),
) -> Manifest:
    """Write a bundle, its weights first and its manifest last, each file replaced in one step; return the final manifest.

    The weights' names and digests in `manifest` are replaced by those of what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = replace(manifest, weights_sha256=_written(folder, "model", networks))
    kept = set(final.weights_sha256)
    if (stage := final.second_stage) is not None:
        stage = replace(stage, weights_sha256=_written(folder, "second-stage", second))
        kept |= set(stage.weights_sha256)
        for name, networks_of in (("fusion", fusion), ("cubes", cubes), ("naming", naming)):
            if (part := getattr(stage, name)) is not None:
                part = replace(part, weights_sha256=_written(folder, name, networks_of))
                stage = replace(stage, **{name: part})
                kept |= set(part.weights_sha256)
        final = replace(final, second_stage=stage)
    text = json.dumps({"format": FORMAT, **_said(final)}, indent=2) + "\n"
    _replace(folder / MANIFEST, text.encode())
    for old in folder.glob("*.safetensors"):
        if old.name not in kept:
            old.unlink()
    return final


def _said(manifest: Manifest) -> dict[str, Any]:
    """What is written of a manifest: of a second stage only the parts that it has, so that an older Willis can read it."""
    said = asdict(manifest)
    if said["second_stage"] is not None:
        said["second_stage"] = {key: value for key, value in said["second_stage"].items() if value is not None}
    return said


def _written(folder: Path, title: str, networks: Sequence[nn.Module]) -> dict[str, str]:
    """The names and digests of the files that now hold the networks' weights."""
    digests: dict[str, str] = {}
    for number, network in enumerate(networks):
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})
        digest = hashlib.sha256(data).hexdigest()
        name = f"{title}-{number}-{digest[:8]}" if len(networks) > 1 else f"{title}-{digest[:8]}"
        _replace(folder / f"{name}.safetensors", data)
        digests[f"{name}.safetensors"] = digest
    return digests


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _last(network: N) -> N:
    """The network with its channels last in memory, where convolutions on a CPU run fastest."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def _filled(folder: Path, digests: dict[str, str], empty: Callable[[], N]) -> tuple[N, ...]:
    """One network for each weight set of a bundle's folder.  Raises BundleError."""
    return tuple(_filled_one(empty(), folder / name, digest) for name, digest in digests.items())


def _filled_one(network: N, path: Path, sha256: str) -> N:
    """The network with one weight set.  Raises BundleError when it is missing, altered, misshapen or not finite."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): copy the bundle again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(
            f"{path} does not have the sha256 in {MANIFEST}: the file is damaged or was exchanged; copy the bundle again"
        )
    try:
        weights = load(data)
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{path} does not fit the network that {MANIFEST} describes: export the bundle again"
        ) from error
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{path} holds values in {name} that are not finite: train and export the bundle again")
        if name == "spread" and not bool((tensor > 0).all()):
            raise BundleError(f"{path} holds a spread that is not above 0: train and export the bundle again")
        if name.endswith("running_var") and not bool((tensor >= 0).all()):
            raise BundleError(f"{path} holds a variance below 0 in {name}: train and export the bundle again")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def _manifest(document: dict[str, Any]) -> Manifest:
    """A manifest from JSON, every key known and none missing.  Raises ValueError, TypeError or KeyError."""
    _only(document, Manifest, "")
    calibration = document["calibration"]
    _only(calibration, Calibration, "calibration.")
    return Manifest(
        **{
            **document,
            "network": _settings(UNetSettings, document["network"], "network."),
            "preprocessing": _settings(Preprocessing, document["preprocessing"], "preprocessing."),
            "tiling": _settings(Tiling, document["tiling"], "tiling."),
            "calibration": Calibration(
                _settings(Platt, calibration["present"], "calibration.present."),
                _settings(Platt, calibration["location"], "calibration.location."),
            ),
            "second_stage": _second_stage(document.get("second_stage")),
        }
    )


def _second_stage(values: dict[str, Any] | None) -> SecondStage | None:
    if values is None:
        return None
    _only(values, SecondStage, "second_stage.")
    shape = _settings(ShapeSettings, values["shape"], "second_stage.shape.")
    fusion = _part(Fusion, FusionSettings, values.get("fusion"), "second_stage.fusion.")
    cubes = _part(Cubes, CubeSettings, values.get("cubes"), "second_stage.cubes.")
    naming = _part(Naming, NamingSettings, values.get("naming"), "second_stage.naming.")
    if fusion and "candidates" not in values:  # older fusions read every candidate from around, whatever `around` said
        values = {**values, "around": MAX_LESIONS}
    return SecondStage(**{**values, "shape": shape, "fusion": fusion, "cubes": cubes, "naming": naming})


def _part(kind: type[T], network: type[Any], values: dict[str, Any] | None, prefix: str) -> T | None:
    """A part with networks of its own, whose shape `network` describes; None where a bundle has none."""
    if values is None:
        return None
    _only(values, kind, prefix)
    return kind(**{**values, "network": _settings(network, values["network"], f"{prefix}network.")})


def _settings(kind: type[T], values: dict[str, Any], prefix: str) -> T:
    _only(values, kind, prefix)
    return kind(**{key: _tuples(value) for key, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _only(values: dict[str, Any], kind: type[Any], prefix: str) -> None:
    known = {each.name for each in fields(cast(Any, kind))}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"unknown key {prefix}{unknown[0]}")
    if missing := sorted(name for name in known - set(values) if prefix + name not in ADDED_LATER):
        raise ValueError(f"missing key {prefix}{missing[0]}")
