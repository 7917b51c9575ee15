"""Several processes that learn together, one for each GPU, as `torchrun` starts them; without it, one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(hours=12)
"""The others wait this long for the first, which paints the phantoms; when one fails, torchrun ends them all at once."""


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one builds the cache, writes checkpoints and reports."""
        return self.rank == 0

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process runs the block; the others do so once it is through."""
        if not self.first:
            dist.barrier()
        yield
        if self.first and self.count > 1:
            dist.barrier()

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in any of the processes."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def average_gradients(self, network: nn.Module) -> None:
        """Every gradient is the mean over the processes; a parameter that has one in none of them stays without."""
        if self.count == 1:
            return
        parameters = list(network.parameters())
        there = torch.tensor([parameter.grad is not None for parameter in parameters], device=parameters[0].device)
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        joined = torch.cat([there.float(), *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(joined)
        where, *sums = joined.split([len(parameters), *(each.numel() for each in parameters)])  # type: ignore[no-untyped-call]
        for parameter, gradient, total, somewhere in zip(parameters, gradients, sums, where.tolist(), strict=True):
            parameter.grad = gradient.copy_(total.view_as(gradient)).div_(self.count) if somewhere else None


@contextmanager
def together(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, on CUDA each with the GPU of its local rank; alone without torchrun."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
