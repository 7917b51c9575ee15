import pytest
import torch

from ai.device import failures_by_type, passes_in_bfloat16, same_answers
from ai.errors import DeviceLost

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "precision", "device", "bfloat16"),
    [
        ({"amx_bf16": True}, "auto", CPU, True),
        ({"amx_bf16": True}, "float32", CPU, False),
        ({"amx_bf16": True}, "auto", GPU, False),
        ({"amx_bf16": False, "avx512_bf16": True}, "auto", CPU, True),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "auto", CPU, False),
        ({"architecture": "aarch64"}, "auto", CPU, False),
    ],
)
def test_bfloat16_is_for_a_cpu_that_has_instructions_for_it(
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


def test_memory_that_torch_does_not_get_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="can't allocate memory"), failures_by_type():
        torch.empty(1 << 50)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nFor debugging consider ..."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=["as torch says it now", "as it did before"],
)
def test_a_gpu_that_failed_is_lost_to_this_process(error: RuntimeError) -> None:
    with pytest.raises(DeviceLost, match=r"^CUDA error: [^\n]+$"), failures_by_type():
        raise error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("sizes do not match")])
def test_every_other_failure_stays_what_it_is(error: RuntimeError) -> None:
    with pytest.raises(RuntimeError) as raised, failures_by_type():
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("precision", "device", "inside"),
    [("auto", GPU, (True, False, True)), ("float32", GPU, (True, False, False)), ("auto", CPU, (False, True, True))],
)
def test_on_a_gpu_an_answer_is_the_same_each_time_and_float32_is_float32(
    precision: str, device: torch.device, inside: tuple[bool, bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)

    def now() -> tuple[bool, bool, bool]:
        return cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    with same_answers(precision, device):
        assert now() == inside
    assert now() == (False, True, True)
