"""The processes that share a training run, as torchrun starts them; one process alone is the same with one rank."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """This process among `count`."""

    rank: int = 0
    count: int = 1

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all ranks."""
        return DistributedDataParallel(network) if self.count > 1 else network

    def any(self, here: bool) -> bool:
        """Whether it holds on any rank: all must end at the same step."""
        if self.count == 1:
            return here
        flag = torch.tensor([int(here)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def first(self, value: float) -> float:
        """The value of rank 0."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


def start_ranks() -> Ranks:
    """Join the process group that torchrun's environment describes."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks()
    if not dist.is_initialized():
        # gloo carries the flags between CPUs, nccl the gradients between GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Ranks(int(os.environ["RANK"]), count)
