"""The model bundle that the configuration names, and the device that it runs on."""

from ai.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from ai.errors import BundleError, DeviceError
from ai.predict import chosen_device
from node.config.sections import Config
from node.errors import ConfigError


def configured_bundle(config: Config) -> Bundle:
    """The bundle of [ai], the shipped one where that names none.  Raises ConfigError when it cannot be used."""
    try:
        return load_bundle(config.ai.bundle or DEFAULT_BUNDLE, config.ai.flip)
    except BundleError as error:
        raise ConfigError(f"[ai] bundle: {error}") from None


def configured_device(config: Config) -> str:
    """The device of [ai] as it is called, "cuda:0" for example.  Raises ConfigError when it is not there."""
    try:
        return str(chosen_device(config.ai.device))
    except DeviceError as error:
        raise ConfigError(f"[ai] {error}") from None
