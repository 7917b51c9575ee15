import pytest
import torch

from ai.device import passes_in_bfloat16

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "precision", "device", "bfloat16"),
    [
        ({"amx_bf16": True}, "auto", CPU, True),
        ({"amx_bf16": True}, "float32", CPU, False),
        ({"amx_bf16": True}, "auto", GPU, False),
        ({"amx_bf16": False, "avx512_bf16": True}, "auto", CPU, False),
        ({"architecture": "aarch64"}, "auto", CPU, False),
    ],
)
def test_bfloat16_is_for_a_cpu_that_multiplies_tiles_of_it(
    capabilities: dict[str, object],
    precision: str,
    device: torch.device,
    bfloat16: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert passes_in_bfloat16(precision, device) is bfloat16


def test_a_torch_that_does_not_say_what_the_processor_can_do_passes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not passes_in_bfloat16("auto", CPU)
