"""One process of a distributed training on CPUs, run by `test_ranks.py`: KIND FOLDER."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

import flagscope
from monitor.nets import mlp, mlp_loss, numbers, random_states, seed_all, train


def wrapped(kind: str, net: Any) -> Any:
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(net)
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (2,))
    for layer in net:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def run_of(kind: str, out: Path | None) -> list[Any]:
    """Losses, weights, optimiser, gradients and random states after 200 steps, in bytes."""
    net = wrapped(kind, mlp())
    seed_all()
    monitor = None if out is None else flagscope.AlignmentMonitor(net, every=50, out=out)
    losses, optimizer = train(net, 200, after=monitor.step if monitor else lambda _: None)
    kept = [net.state_dict(), optimizer.state_dict()["state"], [w.grad for w in net.parameters()]]
    tensors = [one for one in torch.utils._pytree.tree_leaves(kept) if torch.is_tensor(one)]
    local = [one.to_local() if hasattr(one, "to_local") else one for one in tensors]
    return [losses, [one.detach().numpy().tobytes() for one in local], random_states()]


def main(kind: str, folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    if kind.startswith("silent-"):
        plain, watched = (run_of(kind[7:], out) for out in (None, folder / "out"))
        said = {"equal": plain == watched, "tensors": len(plain[1])}
        (folder / f"{rank}.json").write_text(json.dumps(said))
        return
    net = wrapped(kind, mlp())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    pace: dict[str, Any] = {"budget": 0.5} if kind == "budget" else {"every": 2}
    monitor = flagscope.AlignmentMonitor(net, out=folder / "out", **pace)
    steps, seen = (80, []) if kind == "budget" else (4, [])
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        mlp_loss(net, generator).backward()
        optimizer.step()
        if monitor.step(step) is not None:
            seen.append(step)
    result = {"seen": seen, "schedule": str(monitor.schedule), "gaps": monitor.gaps}
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(net, options=whole)
    if rank == 0 and kind != "budget":
        torch.save(state, folder / "model.pt")
        assert monitor.latest is not None
        scanned = numbers(flagscope.scan(folder / "model.pt"))
        result["equal"] = numbers(monitor.latest.report) == scanned
        result["trainable"] = sorted(monitor.latest.trainable)
    (folder / f"{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)
