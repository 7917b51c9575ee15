"""The model bundle that the configuration names."""

import socket
from importlib.metadata import version

from ai.bundle import Bundle, Manifest, load_bundle
from ai.errors import BundleError
from ai.manifest import DEFAULT_BUNDLE, read_document, sha256_of
from node.config.sections import Config
from node.errors import ConfigError
from node.results.document import Algorithm
from node.results.identity import derive_uid


def configured_bundle(config: Config) -> Bundle:
    """The bundle of [ai], the shipped one where that names none.  Raises ConfigError when it cannot be used."""
    try:
        return load_bundle(config.ai.bundle or DEFAULT_BUNDLE, config.ai.flip, config.ai.precision)
    except BundleError as error:
        raise ConfigError(f"[ai] bundle: {error}") from None


def configured_shadow(config: Config) -> Bundle | None:
    """The second bundle of [ai], None where none is named.  Raises ConfigError when it cannot be used, or is the first."""
    if config.ai.shadow is None:
        return None
    try:
        bundle = load_bundle(config.ai.shadow, config.ai.flip, config.ai.precision)
        first = read_document(config.ai.bundle or DEFAULT_BUNDLE)
    except BundleError as error:
        raise ConfigError(f"[ai] shadow: {error}") from None
    if bundle.sha256 == sha256_of(first):
        raise ConfigError(
            f"[ai] shadow = {str(config.ai.shadow)!r}: it is the bundle that reports ({bundle.manifest.version}); name another or none"
        )
    return bundle


def algorithm_of(manifest: Manifest, model: str = "") -> Algorithm:
    """The identity that reports carry; `model`: its version, as `storage.queries.models` tells it from others of that version.

    Another model has another Device UID, as IHE AIR 6.5.3.1 asks.
    """
    software, model = version("willis"), model or manifest.version
    device_uid = derive_uid("device", socket.gethostname(), software, model)
    return Algorithm(manifest.name, model, software, device_uid)


PROTOCOL = 2
"""Raised whenever `node.analysis.drafts.Order`, its `Answer` or what is made of them changes between two releases."""


def model_name(bundle: Bundle) -> str:
    """What a claimant and a worker must have in common: the same Willis and the same weights, read alike."""
    named = f"Willis {version('willis')}/{PROTOCOL} with model {bundle.manifest.version}"
    flipped, precise = bundle.manifest.tiling.flip, bundle.precision == "float32"
    return f"{named} ({bundle.sha256[:12]}{', flipped too' if flipped else ''}{', in float32' if precise else ''})"
