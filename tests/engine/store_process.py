"""Scans in processes of their own, which die in earnest: at a statement of SQL, or in a task."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import torch

import flagscope
from flagscope.engine.run import attempt
from flagscope.engine.store import store

# Imports PyTorch once; every scan is then a process forked from there.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["flagscope.api.scan"])

CONFIG = {
    "model_type": "llama", "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "num_hidden_layers": 3, "vocab_size": 30,
}  # fmt: skip
OPTIONS = {"config": CONFIG, "device": "cpu", "workers": 1}


def llama(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of three blocks: pairs, heads, residual pairs and links."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"self_attn.q_proj": (24, 24), "self_attn.k_proj": (12, 24)}
    shapes |= {"self_attn.v_proj": (12, 24), "self_attn.o_proj": (24, 24)}
    shapes |= {"mlp.up_proj": (40, 24), "mlp.gate_proj": (40, 24), "mlp.down_proj": (24, 40)}
    state = {
        f"model.layers.{i}.{name}.weight": torch.randn(shape, generator=generator)
        for i in range(3)
        for name, shape in shapes.items()
    }
    norms = [f"{i}.{norm}_layernorm" for i in range(3) for norm in ("input", "post_attention")]
    state |= {f"model.layers.{n}.weight": torch.rand(24, generator=generator) + 0.5 for n in norms}
    return state


def text_of(report: flagscope.Report) -> str:
    """The report as it is written, all but what `run` says."""
    return report.result.model_dump_json(by_alias=True, indent=1, exclude={"run"})


class Job:
    """One scan in a process of its own.

    Parameters
    ----------
    source, folder
        The checkpoint and the store.
    log
        Gets a line for each task that is begun, and is there after a kill.
    out
        Gets the report.
    at_statement
        The process kills itself before it carries out this statement of SQL.
    in_task
        It kills itself in the middle of this task.
    pause
        Seconds that every task takes longer.
    """

    def __init__(
        self,
        source: Path,
        folder: Path,
        log: Path,
        out: Path,
        *,
        at_statement: int | None = None,
        in_task: int | None = None,
        pause: float = 0.0,
        barrier: object = None,
        **options: object,
    ) -> None:
        work = (source, folder, log, out, at_statement, in_task, pause, barrier, options)
        self.process = processes.Process(target=_scan, args=work)
        self.process.start()

    def end(self) -> int | None:
        """Wait, and give the exit code: -9 for a kill."""
        self.process.join(120)
        return self.process.exitcode


def _scan(source, folder, log, out, at_statement, in_task, pause, barrier, options):
    torch.set_num_threads(1)
    count = {"task": 0}
    execute = attempt.execute

    def watched(task, checkpoint, settings):
        with open(log, "a") as file:  # noqa: PTH123
            file.write(task.name + "\n")
        result = execute(task, checkpoint, settings)
        count["task"] += 1
        if count["task"] == in_task:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)
        return result

    attempt.execute = watched
    if at_statement is not None:
        _die_at(at_statement)
    if barrier is not None:
        barrier.wait()
    report = flagscope.scan(source, **(OPTIONS | options), store=folder)
    Path(out).write_text(f"{report.result.run.tasks_from_store}\n{text_of(report)}")


def _die_at(statement: int) -> None:
    connect, seen = sqlite3.connect, []

    class Watched:
        """The module sqlite3, whose connections count their statements."""

        def __getattr__(self, name):
            return getattr(sqlite3, name)

        def connect(self, *args, **options):
            connection = connect(*args, **options)
            connection.set_trace_callback(self.count)
            return connection

        def count(self, text):
            seen.append(text)
            if len(seen) == statement:
                os.kill(os.getpid(), signal.SIGKILL)

    store.sqlite3 = Watched()
