"""Measure how the layers and heads of a checkpoint are aligned: `flagscope.scan`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from flagscope.api.progress import shown_progress
from flagscope.api.report import Report
from flagscope.api.sharing import named_paths
from flagscope.api.source import (
    all_of,
    check_device,
    check_run,
    checked_settings,
    mapped,
    opened,
    parts_of,
    readable,
)
from flagscope.engine import (
    TASK_MEMORY,
    Progress,
    Store,
    chosen_executor,
    max_concurrency,
    run_scan,
)
from flagscope.errors import InputError
from flagscope.records import PARTS, Depth, FoldNorms, PairKind, Part, Precision

if TYPE_CHECKING:
    from flagscope.api.source import Config, Source


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
    layers: int | Iterable[int] | None = None,
    kinds: PairKind | Iterable[PairKind] | None = None,
    rank: str = "signal",
    fdr: float = 0.05,
    fold_norms: FoldNorms = "auto",
    window: int = 1,
    edges: int = 200,
    depth: Depth = "auto",
    precision: Precision = "mixed",
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    executor: Executor | str | None = None,
    store: str | os.PathLike[str] | None = None,
    memory: int = TASK_MEMORY,
    progress: Progress | bool | None = None,
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
        Without them inputs are assumed, and a note says which. For a module of a known family they
        are not used, which a note says too.
    only
        Parts to compute, of "health", "pairs", "heads" and "residual". "health" alone is a quick
        check of every weight by itself: NaN, dead neurons and heads, copies, what is missing.
    layers
        Numbers of layers, from 0, to look at alone: pairs, heads and links with both ends in them,
        and the health of their tensors.
    kinds
        Kinds of pairs to look at alone: "qk", "ov", "mlp", "sequential", "conv", "residual" or
        "latent".
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
    depth
        How much of large maps is computed. "full": all singular values and vectors. "sharp": Gram
        matrices, products and leading directions, several times as fast; what takes the whole
        spectrum is null, and in spaces beyond 2,048 C and ν are estimates with standard errors.
        "auto": sharp for pairs whose smaller side is larger than 1,024, full for all others.
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
        True for a bar, False for none; by default there is one in notebooks and interactive
        sessions, and none in scripts. Or a function, called with (tasks done, tasks in all, name of
        the task).

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If an argument is wrong, `example_inputs` are not what the module's forward accepts, or the
        device is not there.
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
    check_run(workers, memory)
    if workers is not None and isinstance(executor, str) and executor != "local":
        raise InputError(
            f"workers is {workers}, and {executor} has its own", hint="leave the workers out"
        )
    settings = checked_settings(
        only=parts_of(only), layers=all_of(layers), kinds=all_of(kinds), family=family,
        heads=heads, rank=rank, fdr=fdr, fold_norms=fold_norms,
        window=window, edges=edges, depth=depth, precision=precision, seed=seed, device=device,
    )  # fmt: skip
    check_device(settings)
    with ExitStack() as stack:
        step = stack.enter_context(shown_progress(progress))
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
            workers=workers, executor=pool, progress=step, store=kept, memory=memory,
        )  # fmt: skip
    return Report(
        result.model_copy(update={"source": readable(result.source)}),
        given=named_paths(source, base, config, family, store),
    )
