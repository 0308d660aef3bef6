"""Opening of a source: its checkpoint, its graph, the check of the settings."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from flagscope.arch import NO_FAMILY, Graph, build_graph, families
from flagscope.checkpoint import Checkpoint, from_state_dict, open_checkpoint
from flagscope.checkpoint.configuration import given_config
from flagscope.checkpoint.derived.parametrized import unmerged_note
from flagscope.checkpoint.derived.stacked import stacked_checkpoint
from flagscope.engine import Settings
from flagscope.errors import ArchitectureError, CorruptFileError, InputError
from flagscope.geometry import RankRule
from flagscope.guard import guarded
from flagscope.records import PARTS, Part
from flagscope.shortening import shortened_notes

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor, nn

    Source = str | os.PathLike[str] | nn.Module | Mapping[str, Tensor | ndarray[Any, Any]]
    Config = Mapping[str, Any] | str | os.PathLike[str]

# Of a checkpoint over a live module: the module to trace, and the checkpoint's names by its own.
_traceable: WeakKeyDictionary[Checkpoint, tuple[nn.Module, dict[str, str]]] = WeakKeyDictionary()

_UNFORESEEN = (
    "--family none reads the tensors by their shapes alone, --config F takes another "
    "configuration; report it with what --debug shows"
)


def opened(
    source: Source,
    *,
    config: Config | None,
    revision: str | None,
    base: str | os.PathLike[str] | None,
    fetch: bool = True,
    tensors: str | None = None,
) -> Checkpoint:
    """A source opened for reading, with the configuration that is given or lies next to it.

    Raises
    ------
    InputError
        If it is not a source, or an argument does not go with it.
    SourceError
        If it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return open_checkpoint(
            source, config=config, revision=revision, base=base, fetch=fetch, tensors=tensors
        )
    from torch import nn

    if revision is not None:
        raise InputError("revision is for hub names", hint="leave it out for weights in memory")
    if base is not None:
        raise InputError("base is for adapters on disk", hint="leave it out for weights in memory")
    given = None if config is None else given_config(config)
    if isinstance(source, nn.Module):
        if tensors is not None:
            raise InputError(
                "tensors is for files and mappings", hint="give the part of the module"
            )
        from flagscope.live import module_checkpoint

        checkpoint, module, names = module_checkpoint(source, config=given)
        _traceable[checkpoint] = module, names
        return checkpoint
    if isinstance(source, Mapping):
        return from_state_dict(source, config=given, tensors=tensors)
    raise InputError(
        f"cannot scan a {type(source).__name__}",
        hint="give a path, a hub name, an nn.Module or a mapping of names to tensors or arrays",
    )


def mapped(
    checkpoint: Checkpoint, settings: Settings, source: Source, example_inputs: Any
) -> tuple[Checkpoint, Graph]:
    """What the tensors of an opened source are, and the checkpoint as the graph takes them.

    An unknown module is traced. Tensors that the graph takes together are together in the
    checkpoint, which closes the one that was given.

    Raises
    ------
    ArchitectureError
        If they contradict the configuration.
    UnforeseenError
        If they cannot be mapped for a reason that no check foresaw.
    """
    with guarded(f"mapping the tensors of {checkpoint.source}", hint=_UNFORESEEN):
        graph = _graph_of(checkpoint, settings, source, example_inputs)
        graph = replace(graph, notes=tuple(shortened_notes(graph.notes)))
        return stacked_checkpoint(checkpoint, graph.stacked), graph


def _graph_of(
    checkpoint: Checkpoint, settings: Settings, source: Source, example_inputs: Any
) -> Graph:
    from torch import nn

    shapes = {
        name: info.shape
        for name, info in checkpoint.tensors.items()
        if name not in checkpoint.auxiliary
    }
    for name in shapes:
        if name != readable(name):
            raise CorruptFileError(
                f"the tensor name {name!a} is not valid text",
                hint="the file is damaged; fetch it again or save it with other names",
            )
    known: dict[str, Any] = {"family": settings.family, "heads": settings.heads}
    known["window"] = settings.window if "residual" in settings.only else 0
    if isinstance(source, nn.Module):
        from flagscope.arch.trace import module_graph  # torch.export takes seconds to import

        module, given = _traceable[checkpoint]
        held = set(given.values())
        names = {name: name for name in shapes if name not in held}  # dequantised weights
        names |= {theirs: name for theirs, name in given.items() if name in shapes}
        return module_graph(
            module, checkpoint.config, names=names, shapes=shapes,
            example_inputs=example_inputs, **known,
        )  # fmt: skip
    if example_inputs is not None:
        raise InputError("example_inputs are for a module", hint="leave them out for a checkpoint")
    known["wiring"] = checkpoint.wiring
    if checkpoint.config is None or checkpoint.config is not checkpoint.stored_config:
        graph = build_graph(shapes, checkpoint.config, **known)
    else:
        graph = _graph_by_stored_settings(shapes, checkpoint.config, known)
    return replace(graph, notes=(*unmerged_note(shapes), *graph.notes))


def _graph_by_stored_settings(
    shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any], known: dict[str, Any]
) -> Graph:
    """The graph, with settings that a training script saved where they say something of a model.

    They may use a model's key for something else, or say nothing of it: then what is assumed
    without a config is assumed, and reported.
    """
    plain = build_graph(shapes, None, **known)
    try:
        graph = build_graph(shapes, settings, **known)
    except ArchitectureError as error:
        note = f"the settings that the file itself holds are left aside, they do not fit: {error}"
        return replace(plain, notes=(*plain.notes, note))
    return plain if replace(graph, notes=plain.notes) == plain else graph


def checked_settings(**values: Any) -> Settings:
    """Settings of a scan.

    Raises
    ------
    InputError
        If one has a value that it may not have.
    """
    from pydantic import ValidationError

    try:
        settings = Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        raise InputError(
            f"{where}: {first['msg']}, got {first['input']!r}",
            hint="see the documentation of flagscope.scan for what it may be",
        ) from error
    RankRule.parse(settings.rank)
    _check_family(settings.family)
    return settings


def check_device(settings: Settings) -> None:
    """Compute something there before any weight is read."""
    import torch

    if settings.device == "auto":
        return
    try:
        torch.ones(1, dtype=torch.float64, device=settings.device).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        # PyTorch raises AssertionError where it was built without CUDA, TypeError for a dtype that
        # the device lacks.
        raise InputError(
            f"device {settings.device!r} cannot be used: {str(error).partition(chr(10))[0]}",
            hint="give cpu, or auto to take CUDA where there is any",
        ) from error


def check_run(workers: int | None, memory: int) -> None:
    """Raise `InputError` where a scan cannot run with these numbers."""
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}", hint="give 1 or more")
    if memory < 0:
        raise InputError(f"memory is {memory}", hint="give a number of bytes")


def parts_of(only: Part | Iterable[Part]) -> tuple[Part, ...]:
    """The parts of a scan that are asked for."""
    parts: tuple[Any, ...] = (only,) if isinstance(only, str) else tuple(only)
    if not parts:
        raise InputError("only names no part", hint=f"give some of {', '.join(PARTS)}")
    return parts


def all_of(chosen: object) -> tuple[Any, ...] | None:
    """One value, several, or None, which stands for all, as a setting has them."""
    if chosen is None:
        return None
    if isinstance(chosen, Iterable) and not isinstance(chosen, str):
        return tuple(chosen)
    return (chosen,)


def readable(text: str) -> str:
    """Replace lone surrogates of a name, which UTF-8 cannot encode, by "?"."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _check_family(name: str | None) -> None:
    known = [family.name for family in families()]
    if name is None or name in (*known, NO_FAMILY) or name.endswith(".toml"):
        return
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    raise InputError(
        f"there is no family {name!r}",
        hint=f"{meant}give the path of a family file (.toml), none, or one of {', '.join(known)}",
    )
