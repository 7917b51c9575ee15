"""The model bundle that the configuration names."""

import hashlib
import json
import socket
from dataclasses import asdict
from importlib.metadata import version

from ai.bundle import Bundle, Manifest, load_bundle, read_manifest
from ai.errors import BundleError
from ai.manifest import DEFAULT_BUNDLE
from node.config.sections import Config
from node.errors import ConfigError
from node.results.document import Algorithm
from node.results.identity import derive_uid


def configured_bundle(config: Config) -> Bundle:
    """The bundle of [ai], the shipped one where that names none.  Raises ConfigError when it cannot be used."""
    try:
        return load_bundle(config.ai.bundle or DEFAULT_BUNDLE, config.ai.flip)
    except BundleError as error:
        raise ConfigError(f"[ai] bundle: {error}") from None


def configured_shadow(config: Config) -> Bundle | None:
    """The second bundle of [ai], None where none is named.  Raises ConfigError when it cannot be used, or is the first."""
    if config.ai.shadow is None:
        return None
    try:
        bundle = load_bundle(config.ai.shadow, config.ai.flip)
        first = read_manifest(config.ai.bundle or DEFAULT_BUNDLE)
    except BundleError as error:
        raise ConfigError(f"[ai] shadow: {error}") from None
    if manifest_sha256(read_manifest(config.ai.shadow)) == manifest_sha256(first):
        raise ConfigError(
            f"[ai] shadow = {str(config.ai.shadow)!r}: it is the bundle that reports ({first.version}); name another or none"
        )
    return bundle


def manifest_sha256(manifest: Manifest) -> str:
    """The SHA-256 of all that the manifest says, the digests of its weights among it."""
    return hashlib.sha256(json.dumps(asdict(manifest), sort_keys=True, default=str).encode()).hexdigest()


def algorithm_of(manifest: Manifest, model: str = "") -> Algorithm:
    """The identity that reports carry; `model`: its version, as `storage.queries.models` tells it from others of that version.

    Another model has another Device UID, as IHE AIR 6.5.3.1 asks.
    """
    software, model = version("willis"), model or manifest.version
    device_uid = derive_uid("device", socket.gethostname(), software, model)
    return Algorithm(manifest.name, model, software, device_uid)


def model_name(manifest: Manifest, flip: bool) -> str:
    """What a claimant and a worker must have in common: the same Willis and the same weights, read alike."""
    digest = manifest_sha256(manifest)[:12]
    return f"Willis {version('willis')} with model {manifest.version} ({digest}{', flipped too' if flip else ''})"
