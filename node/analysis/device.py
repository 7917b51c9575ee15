"""The device that the configuration names: known before all that the analysis imports."""

from ai.device import chosen_device
from ai.errors import DeviceError
from node.config.sections import Config
from node.errors import ConfigError


def configured_device(config: Config) -> str:
    """The device of [ai] as it is called, "cuda:0" for example.  Raises ConfigError when it is not there."""
    try:
        return str(chosen_device(config.ai.device))
    except DeviceError as error:
        raise ConfigError(f"[ai] {error}") from None
