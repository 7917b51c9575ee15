"""The device that a setting names."""

import ctypes.util

import pytest

from ai.driver import _AMD, require_driver
from ai.errors import DeviceError


def test_without_a_driver_there_is_no_gpu_and_that_is_known_before_torch_is_imported() -> None:
    for each in ("auto", "cpu"):
        require_driver(each)
    if ctypes.util.find_library("cuda") or _AMD.exists():
        require_driver("cuda")
    else:
        with pytest.raises(DeviceError, match=r"^device = 'cuda:0': there is no CUDA GPU here \(no driver"):
            require_driver("cuda:0")
