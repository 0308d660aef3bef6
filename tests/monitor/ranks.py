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
from monitor.nets import mlp, mlp_loss, numbers


def wrapped(kind: str, net: Any) -> Any:
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(net)
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (2,))
    for layer in net:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def main(kind: str, folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
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
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
