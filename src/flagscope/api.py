"""What `import flagscope` offers: scan a checkpoint, inspect it, and a report of either."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flagscope.arch import Graph
from flagscope.engine import (
    TASK_MEMORY,
    Estimate,
    Progress,
    Store,
    Task,
    chosen_executor,
    coverage_of,
    estimated,
    max_concurrency,
    plan,
    run_scan,
    weights_of,
)
from flagscope.errors import InputError
from flagscope.records import PARTS, Coverage, FoldNorms, Part, Precision, ScanResult
from flagscope.sharing import named_paths, shareable, shared_result
from flagscope.source import check_device, checked_settings, mapped, opened, readable
from flagscope.writing import write_whole

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from flagscope.report import Finding
    from flagscope.source import Config, Source


class Report:
    """The result of a scan, as frames, figures, JSON and a page.

    Attributes
    ----------
    result
        All records, frozen; also the published JSON schema `flagscope.scan/2`.
    """

    def __init__(self, result: ScanResult, *, given: Iterable[str] = ()) -> None:
        self.result = result
        self._given = tuple(given)  # paths, which stay on this machine

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Read a report back from a file that `to_json` wrote.

        A file of schema `flagscope.scan/1` is read too. What it lacks is None, and since its
        p-values were not held at one error rate, its findings say that alone.

        Raises
        ------
        InputError
            If the file is not a scan of schema `flagscope.scan/2` or `flagscope.scan/1`.
        """
        from pydantic import ValidationError

        try:
            if Path(source).exists() and not Path(source).is_file():
                raise OSError("not a file")  # reading a pipe may never end
            text = Path(source).read_text(encoding="utf-8")
            return cls(ScanResult.model_validate_json(text))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"{os.fspath(source)} is not a scan of schema flagscope.scan/2 or /1: {first}",
                hint="give a file written by `flagscope scan --json` or Report.to_json",
            ) from error

    @cached_property
    def pairs(self) -> pandas.DataFrame:
        """One row for each adjacent pair."""
        from flagscope.report import pairs_frame

        return pairs_frame(self.result)

    @cached_property
    def heads(self) -> pandas.DataFrame:
        """One row for each layer's heads in each space of the stream."""
        from flagscope.report import heads_frame

        return heads_frame(self.result)

    @cached_property
    def edges(self) -> pandas.DataFrame:
        """One row for each link from head to head that the scan kept: those that stand out."""
        from flagscope.report import edges_frame

        return edges_frame(self.result)

    @cached_property
    def findings(self) -> list[Finding]:
        """What lies beyond chance, in plain words, strong ones first, in order of effect."""
        from flagscope.report import findings

        return findings(self.result)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Interactive figures by name."""
        from flagscope.report import all_figures

        return all_figures(self.result)

    def to_json(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """The result as JSON text; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        text = self._shared(paths).model_dump_json(by_alias=True, indent=1)
        return _written(text, path)

    def to_html(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """The result as one self-contained page; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        from flagscope.report import render_page

        return _written(render_page(self._shared(paths)), path)

    def _shared(self, paths: bool = False) -> ScanResult:
        return self.result if paths else shared_result(self.result, self._given)

    def _repr_html_(self) -> str:
        from flagscope.report import render_summary

        return render_summary(self._shared())

    def __repr__(self) -> str:
        from flagscope.report import measured_share

        r = self.result
        share = "" if r.coverage is None else f"{measured_share(r.coverage)}, "
        return (
            f"Report({r.source!r}, family={r.family!r}, {share}{len(r.pairs)} pairs, "
            f"{len(r.heads)} head groups, {len(r.failures)} failures)"
        )


@dataclass(frozen=True)
class Inspection:
    """What is known of a checkpoint from its header alone.

    Attributes
    ----------
    source
        What was opened.
    parameters
        Number of parameters: tied weights once, buffers not at all.
    coverage
        How much of them a scan would measure, and what it would leave out, by reason.
    graph
        Maps, pairs and head groups.
    tasks
        What a scan would do, with the cost of each part.
    notes
        What could not be mapped, and what was assumed.
    estimate
        What a scan would take on this machine, if that was asked for.
    """

    source: str
    parameters: int
    coverage: Coverage
    graph: Graph
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]
    estimate: Estimate | None = None
    _given: tuple[str, ...] = ()

    @property
    def bytes_read(self) -> int:
        """Bytes that a scan reads of the checkpoint if it has room to read each tensor once."""
        return sum({piece: size for task in self.tasks for piece, size in task.pieces.items()}
                   .values())  # fmt: skip

    def to_json(self, *, paths: bool = False) -> str:
        """Counts, tasks and estimate as JSON text, absolute paths shortened unless `paths`."""
        short = str if paths else shareable((*named_paths(self.source), *self._given))
        tasks = [
            {"name": task.name, "pairs": sum(len(group.members) for group in task.pairs),
             "head_groups": len(task.heads), "flops": task.flops, "bytes_read": task.bytes_read,
             "bytes_working": task.bytes_working,
             "work": [[*key, amount] for key, amount in task.work.amounts.items()]}
            for task in self.tasks
        ]  # fmt: skip
        document = {
            "source": readable(short(self.source)),
            "family": short(self.graph.family),
            "parameters": self.parameters,
            "coverage": self.coverage.model_dump(mode="json"),
            "flops": sum(task.flops for task in self.tasks),
            "bytes_read": self.bytes_read,
            "estimate": None if self.estimate is None else asdict(self.estimate),
            "tasks": tasks,
            "notes": [short(note) for note in self.notes],
            "unmapped": list(self.graph.unmapped),
        }
        return json.dumps(document, indent=1)


def scan(
    source: Source,
    *,
    config: Config | None = None,
    revision: str | None = None,
    base: str | os.PathLike[str] | None = None,
    tensors: str | None = None,
    family: str | None = None,
    heads: int | None = None,
    example_inputs: Any = None,
    only: Part | Iterable[Part] = PARTS,
    rank: str = "signal",
    fdr: float = 0.05,
    fold_norms: FoldNorms = "auto",
    window: int = 1,
    edges: int = 200,
    precision: Precision = "mixed",
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    executor: Executor | str | None = None,
    store: str | os.PathLike[str] | None = None,
    memory: int = TASK_MEMORY,
    progress: Progress | None = None,
) -> Report:
    """Read a network's weights, and no data, and say how its layers and heads are aligned.

    Parameters
    ----------
    source
        A checkpoint file, a folder with one, a hub name, an `nn.Module`, or a mapping of names to
        tensors.
    config
        The model's configuration, a mapping or a JSON file, where none lies next to the weights.
    revision
        Branch, tag or commit of a hub repository.
    base
        The model under a PEFT adapter, where its adapter_config.json does not name it.
    tensors
        Which group of tensors to read, where the source holds several (generator and discriminator,
        a model and its moving average): the keys that lead to it in a torch file or a mapping, with
        dots between them, or the start that the names of its tensors share.
    family
        Name of a model family or path of a family file of your own (.toml), to override what the
        config and the names say, or "none" to take no family for its names; see
        `flagscope.families`.
    heads
        Number of attention heads, where no config says it.
    example_inputs
        For a module of no known family: arguments of its forward, a tensor, a tuple, or a mapping
        of named ones. It is traced on their shapes and types; their values are not looked at.
        Without them inputs are assumed, and a note says which.
    only
        Parts to compute, of "pairs", "heads" and "residual".
    rank
        Rule for the dimensions of the dominant spaces of a pair: "signal" (directions that stand
        out of the bulk), "participation", "numerical", "energy:0.9" or "fixed:8".
    fdr
        Error rate of the whole report: of what is counted as beyond chance a share of at most this
        is expected to be chance, and the chance of any false strong or notable finding is at most
        this.
    fold_norms
        "auto" folds a BatchNorm into the map in front of it, "all" also the gain of a pre-norm
        into the head spaces, "none" leaves weights as stored.
    window
        How many blocks further than its writer a reader of the residual stream may lie.
    edges
        How many links from head to head to list, those furthest beyond chance; 0 for none.
    precision
        Arithmetic of Gram matrices and eigenproblems: "mixed" (float32 for large maps, float64
        where it matters and for all others), "float64", or "float32" (maps of every size as the
        large ones are).
    seed
        Of the random draws that stand in where a null has no closed form.
    device
        "auto", "cpu", "cuda" or another torch device.
    workers
        Tasks carried out at once, in threads and where memory allows; by default one for each of
        PyTorch's threads, at most four.
    executor
        Instead of threads: any `concurrent.futures.Executor`, "dask:ADDRESS" of a Dask scheduler,
        or a `dask.distributed.Client`. Workers in other processes open the checkpoint themselves;
        weights in memory travel with the tasks, up to 2 GiB.
    store
        A folder on a local disk, made if it is not there, in which the result of each task is kept
        as it comes. A scan that was killed, started again with the same store, takes from it what
        was done: `report.result.run.tasks_from_store` says how much. Scans of other checkpoints
        and with other settings may use it too.
    memory
        Bytes that the threads of this process may take together, 3 GB by default, a quarter of
        them for tensors that are held for tasks to come. A task that needs more runs alone.
    progress
        Called with (tasks done, tasks in all, name of the task).

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If an argument is wrong, or the device is not there.
    SourceError
        If the checkpoint cannot be read.
    ArchitectureError
        If its tensors contradict its config.
    StoreError
        If the store is damaged, lies on a network file system, or its disk is full.

    References
    ----------
    Xiao, Sui, Ruan, "Flag Varieties: A Geometric Framework for Deep Network Alignment", arXiv
    2605.09861 (2026).

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> report = scan(net)
    >>> report.pairs["name"].tolist(), report.result.pairs[0].freedom
    (['0-2'], 'scaling')
    """
    _check_run(workers, memory)
    if workers is not None and isinstance(executor, str) and executor != "local":
        raise InputError(
            f"workers is {workers}, and {executor} has its own", hint="leave the workers out"
        )
    settings = checked_settings(
        only=_parts(only), family=family, heads=heads, rank=rank, fdr=fdr, fold_norms=fold_norms,
        window=window, edges=edges, precision=precision, seed=seed, device=device,
    )  # fmt: skip
    check_device(settings)
    with ExitStack() as stack:
        pool = stack.enter_context(chosen_executor(executor))
        if pool is not None:
            workers = workers or max_concurrency(pool)
        kept = None if store is None else stack.enter_context(Store(store))
        checkpoint = stack.enter_context(
            opened(source, config=config, revision=revision, base=base, tensors=tensors)
        )
        checkpoint, graph = mapped(checkpoint, settings, source, example_inputs)
        result = run_scan(
            checkpoint, graph, settings,
            workers=workers, executor=pool, progress=progress, store=kept, memory=memory,
        )  # fmt: skip
    return Report(
        result.model_copy(update={"source": readable(result.source)}),
        given=named_paths(source, base, config, family, store),
    )


def inspect(
    source: Source,
    *,
    config: Config | None = None,
    revision: str | None = None,
    base: str | os.PathLike[str] | None = None,
    tensors: str | None = None,
    family: str | None = None,
    heads: int | None = None,
    example_inputs: Any = None,
    only: Part | Iterable[Part] = PARTS,
    window: int = 1,
    edges: int = 200,
    precision: Precision = "mixed",
    workers: int | None = None,
    memory: int = TASK_MEMORY,
    estimate: bool = False,
) -> Inspection:
    """What a scan would find to measure, from the header alone; reads no tensor.

    Parameters, errors and references as for `scan`, and `estimate`: whether to estimate time and
    memory of the scan in threads of this process. Products and eigenproblems are timed for that,
    for some two seconds and once in a process, and the disk by at most 64 MiB of the largest file.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> [task.name for task in inspect(net).tasks]
    ['0-2']
    """
    _check_run(workers, memory)
    settings = checked_settings(
        only=_parts(only), family=family, heads=heads, window=window, edges=edges,
        precision=precision,
    )  # fmt: skip
    with opened(
        source, config=config, revision=revision, base=base, tensors=tensors, fetch=False
    ) as checkpoint:
        checkpoint, graph = mapped(checkpoint, settings, source, example_inputs)
        sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
        tasks = tuple(plan(graph, settings, sizes))
        weights = weights_of(checkpoint, read=False)
        return Inspection(
            source=checkpoint.source,
            parameters=weights.parameters,
            coverage=coverage_of(checkpoint, graph, tasks, weights),
            graph=graph,
            tasks=tasks,
            notes=(*checkpoint.notes, *graph.notes),
            estimate=estimated(tasks, checkpoint.tensors, workers=workers, memory=memory)
            if estimate
            else None,
            _given=named_paths(source, base, config, family),
        )


def _check_run(workers: int | None, memory: int) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}", hint="give 1 or more")
    if memory < 0:
        raise InputError(f"memory is {memory}", hint="give a number of bytes")


def _parts(only: Part | Iterable[Part]) -> tuple[Part, ...]:
    parts: tuple[Any, ...] = (only,) if isinstance(only, str) else tuple(only)
    if not parts:
        raise InputError("only names no part", hint=f"give some of {', '.join(PARTS)}")
    return parts


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write_whole(path, text)
    return text
