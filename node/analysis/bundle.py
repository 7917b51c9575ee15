"""The model bundle that the configuration names."""

import hashlib
import json
from dataclasses import asdict

from ai.bundle import Bundle, Manifest, load_bundle, read_manifest
from ai.errors import BundleError
from ai.manifest import DEFAULT_BUNDLE
from node.config.sections import Config
from node.errors import ConfigError


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
