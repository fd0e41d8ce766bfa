"""One process or many: who am I, how the network is spread, and how its tensors come together again.

Processes are started by torchrun on one or several nodes. Everything goes by the global rank; the local rank only picks
the GPU. DDP keeps a copy of the network in every process, FSDP (``fully_shard``) a slice of every parameter.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from av_bench.contracts import UsageError
from av_bench.runtime.devices import check_device
from model_zoo.mmaudio.training.recipe import FlowRecipe, RunSettings
from model_zoo.mmaudio.training.regions import blocks_of, compile_regions, open_sizes

_PATIENCE = timedelta(hours=24)  # how long processes wait while the first one samples and scores


@dataclass(frozen=True)
class Cluster:
    """This process among all: global ``rank`` of ``world``, its device, and a group for long waits."""

    rank: int
    world: int
    device: torch.device
    waiting: dist.ProcessGroup | None = None  # a gloo group, None for a single process

    @property
    def first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process is here."""
        if self.waiting is not None:
            dist.barrier(group=self.waiting)

    def agree(self, number: int) -> int:
        """The first process's ``number``, in every process."""
        if self.waiting is None:
            return number
        value = torch.tensor([number])
        dist.broadcast(value, src=0, group=self.waiting)
        return int(value)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in some process, known to all."""
        if self.waiting is None:
            return flag
        value = torch.tensor([int(flag)])
        dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self.waiting)
        return bool(value)

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Sum of ``value`` over all processes, in every process."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value


@contextmanager
def cluster(run: RunSettings) -> Iterator[Cluster]:
    """Join the processes that torchrun started; a process of its own without it."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    launched = "RANK" in os.environ
    device = device_of(run)
    cuda = device.type == "cuda"
    if cuda:
        check_device(str(device))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    if run.parallel == "fsdp" and not launched:
        raise UsageError("run.parallel is fsdp: start with torchrun --nproc-per-node N -m av_bench train ...")
    with _fixed_order(run.deterministic), open_sizes() if run.compile else nullcontext():
        if not launched:
            yield Cluster(rank, world, device)
            return
        with _joined(rank, world, device) as processes:
            yield processes


@contextmanager
def _fixed_order(wanted: bool) -> Iterator[None]:
    """Deterministic algorithms where torch has them, a warning where it has none."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix product is made
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _joined(rank: int, world: int, device: torch.device) -> Iterator[Cluster]:
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Cluster(rank, world, device, dist.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        dist.destroy_process_group()


def device_of(run: RunSettings) -> torch.device:
    """Where this process trains: the GPU that is named, else that of the local rank. UsageError when both are."""
    if run.device == "cpu" or (run.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if ":" not in run.device:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if "RANK" in os.environ:
        raise UsageError(f"device {run.device}: started by torchrun, each process takes its own GPU; use device cuda")
    return torch.device(run.device)


def check_batch(recipe: FlowRecipe, world: int) -> None:
    """UsageError unless the global batch divides evenly over processes and accumulation pieces."""
    pieces = world * recipe.run.accumulate
    if recipe.batch % pieces:
        raise UsageError(
            f"batch {recipe.batch} does not divide into {world} processes x {recipe.run.accumulate} pieces; "
            f"use a multiple of {pieces}"
        )


def wrap_parallel(network: nn.Module, run: RunSettings, cluster: Cluster) -> nn.Module:
    """Prepare the network for training: recomputation, compilation, DDP or FSDP. Keys stay as they are.

    Returns the module to call; ``network`` itself stays the one with the parameters.
    """
    blocks = blocks_of(network)
    if run.checkpointing:
        for block in blocks:  # nothing in a block is random, so no random state needs keeping
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    if run.parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(cluster.device.type, (cluster.world,))
        # Slices and sums of gradients stay float32; what is gathered for a pass is half of that with bf16.
        gathered = torch.bfloat16 if run.precision == "bf16" else torch.float32
        policy = MixedPrecisionPolicy(gathered, torch.float32, cast_forward_inputs=False)
        for block in [*blocks, network]:
            fully_shard(block, mesh=mesh, mp_policy=policy)
    if run.compile:
        compile_regions(network)
    if cluster.world == 1 or run.parallel == "fsdp":
        return network
    from torch.nn.parallel import DistributedDataParallel

    ids = [cluster.device.index] if cluster.device.type == "cuda" else None
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters  # torch 2.13
    buffers: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    return DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True, **buffers)


@contextmanager
def gradients_stay_local(module: nn.Module, local: bool) -> Iterator[None]:
    """Within it, backward passes of a spread ``module`` don't exchange gradients (all pieces but the last)."""
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not local)
        yield
    elif isinstance(module, DistributedDataParallel) and local:
        with module.no_sync():
            yield
    else:
        yield


def full_tensor(value: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together (every process must call it); others as they are."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def gather_full(values: Iterable[tuple[str, torch.Tensor]], keep: bool) -> dict[str, torch.Tensor]:
    """Tensors put together one after the other and kept on the CPU where ``keep`` says so (every process must call
    it): no device ever holds more than one of them whole."""
    found = {}
    for name, value in values:
        complete = full_tensor(value.detach())
        if keep:
            found[name] = complete.cpu()
    return found


def local_shard(value: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, sharing its memory; others as they are."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def as_sharded_like(value: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """The whole tensor ``value``, laid out as ``pattern`` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    value = value.to(pattern.device, pattern.dtype)
    if isinstance(pattern, DTensor):
        return distribute_tensor(value, pattern.device_mesh, pattern.placements, src_data_rank=None)
    return value


def from_local(part: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """A process's part (as ``local`` gives it) as the tensor it is a part of."""
    from torch.distributed.tensor import DTensor

    if isinstance(pattern, DTensor):
        return DTensor.from_local(
            part, pattern.device_mesh, pattern.placements, shape=pattern.shape, stride=pattern.stride()
        )
    return part
