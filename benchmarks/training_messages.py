"""What two processes send each other in a training step: messages, bytes, and how much of it leaves early.

    python benchmarks/training_messages.py [--hidden 128] [--steps 3] [--vae 16k --vae-message 25]

Two processes with gloo on the CPU. The flow network's gradients go through DDP, the VAE's through ``Buckets``; both
also as the one message after the backward pass that is the alternative. "Early" are the bytes of all messages that left
before the last gradient was ready: only these can overlap with computing. Steps of both kinds are taken in turns; the
ratio of their times says something only on an idle machine with a core per process.
"""

import argparse
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from mmaudio_training import build, random_batch
from torch import nn

from model_zoo.mmaudio.codec.vae import VAE
from model_zoo.mmaudio.training.buckets import Buckets
from model_zoo.mmaudio.training.distributed import Cluster, wrap_parallel
from model_zoo.mmaudio.training.objective import Matching, Normaliser, gradients
from model_zoo.mmaudio.training.recipe import RunSettings, read_recipe
from model_zoo.mmaudio.training.setup import network_config
from model_zoo.mmaudio.vae_training.recipes import RECIPES

WHOLE = 2**40


@dataclass
class Count:
    """Bytes of each message of a step, and the seconds of the steps."""

    sizes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """One row of the table."""
        total, mebi = sum(self.sizes), 2**20
        early = sum(self.sizes[:-1]) / total
        return f"| {name} | {len(self.sizes)} | {total / mebi:.1f} | {max(self.sizes) / mebi:.1f} | {early:.0%} |"


def hook(count: Count, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's own exchange, counted."""
    flat = bucket.buffer()
    count.sizes.append(flat.numel() * flat.element_size())
    work = dist.all_reduce(flat.div_(dist.get_world_size()), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])  # type: ignore[no-any-return]


def flow_steps(hidden: int) -> dict[str, tuple[Count, Callable[[], Any]]]:
    """Backward passes of the flow network under DDP: its buckets, and one message."""
    config = replace(network_config(read_recipe("small_16k")), hidden=hidden, heads=hidden // 64)
    found: dict[str, tuple[Count, Callable[[], Any]]] = {}
    for name, most in (("flow network, DDP's buckets", None), ("flow network, one message", WHOLE)):
        network = build(config, torch.device("cpu"))
        objective = Matching(Normaliser(network.latent_mean.detach(), network.latent_std.detach()))
        module: nn.Module
        if most is None:
            module = wrap_parallel(network, RunSettings(compile=False), Cluster(*_place(), torch.device("cpu")))
        else:
            module = nn.parallel.DistributedDataParallel(network, bucket_cap_mb=most / 2**20)
        count, batch = Count(), random_batch(config, 1, torch.device("cpu"))
        module.register_comm_hook(count, hook)  # type: ignore[operator]
        found[name] = count, lambda m=module, b=batch, o=objective: gradients(m, b, o)
    return found


def vae_steps(name_of_recipe: str, most: int) -> dict[str, tuple[Count, Callable[[], Any]]]:
    """Backward passes of the VAE with its messages, and with one."""
    recipe = RECIPES[name_of_recipe]
    found: dict[str, tuple[Count, Callable[[], Any]]] = {}
    for name, size in (("buckets", most), ("one message", WHOLE)):
        torch.manual_seed(0)
        vae = VAE(recipe.vae).train()
        buckets, count = Buckets(list(vae.parameters()), size), Count()
        mel = torch.randn(1, recipe.mel.n_mels, 64)

        def step(vae: VAE = vae, buckets: Buckets = buckets, count: Count = count, mel: torch.Tensor = mel) -> None:
            buckets.start()
            (vae.decode(vae.encode(mel).mean) - mel).abs().sum().backward()
            buckets.finish()
            assert buckets.early == buckets.sent, "a gradient never came"
            count.sizes += [sum(p.numel() * p.element_size() for p in group) for group in buckets.groups]

        found[f"VAE {name_of_recipe}, {name}"] = count, step
    return found


def _place() -> tuple[int, int]:
    return dist.get_rank(), dist.get_world_size()


def member(rank: int, port: int, hidden: int, steps: int, vae: str, most: int) -> None:
    """One process of two."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for rows in (flow_steps(hidden), vae_steps(vae, most)):
        for _ in range(steps + 2):  # DDP arranges its messages anew after the first step
            for count, step in rows.values():
                count.sizes.clear()
                dist.barrier()
                started = time.perf_counter()
                step()
                count.seconds.append(time.perf_counter() - started)
        if rank == 0:
            for name, (count, _) in rows.items():
                print(count.line(name), flush=True)
            first, second = (sorted(count.seconds[2:])[steps // 2] for count, _ in rows.values())
            print(f"(one message / messages, median seconds of {steps} steps: {second / first:.2f})", flush=True)
    dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128, help="width of the flow network, a multiple of 64")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--vae", default="tiny", choices=sorted(RECIPES), help="recipe of the VAE")
    parser.add_argument("--vae-message", type=float, default=0.25, help="MiB of a message of the VAE (training: 25)")
    given = parser.parse_args(arguments)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(
        "| gradients of one step, float32 | messages | MiB | largest, MiB | early |\n|---|---:|---:|---:|---:|",
        flush=True,
    )
    spawn = multiprocessing.get_context("spawn")
    given_to_each = (port, given.hidden, given.steps, given.vae, round(given.vae_message * 2**20))
    places = [spawn.Process(target=member, args=(rank, *given_to_each)) for rank in range(2)]
    for process in places:
        process.start()
    for process in places:
        process.join()
    if any(process.exitcode for process in places):
        raise SystemExit("a process failed")


if __name__ == "__main__":
    main()
