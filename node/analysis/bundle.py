"""The model bundle that the configuration names."""

from ai.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from ai.errors import BundleError
from node.config.sections import Config
from node.errors import ConfigError


def configured_bundle(config: Config) -> Bundle:
    """The bundle of [ai], the shipped one where that names none.  Raises ConfigError when it cannot be used."""
    try:
        return load_bundle(config.ai.bundle or DEFAULT_BUNDLE, config.ai.flip)
    except BundleError as error:
        raise ConfigError(f"[ai] bundle: {error}") from None
