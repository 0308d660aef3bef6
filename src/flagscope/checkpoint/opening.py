"""Choice of the reader that fits what the user names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from flagscope.checkpoint.adapter import AdapterCheckpoint
from flagscope.checkpoint.adapter_base import GIVE_BASE, named_base, refuse_chain
from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.configuration import config_beside, given_config
from flagscope.checkpoint.deepspeed import refuse_empty, refuse_optimizer, settings_folder
from flagscope.checkpoint.derived.parametrized import whole_weights
from flagscope.checkpoint.derived.part import part_of, without_twins
from flagscope.checkpoint.derived.renamed import unwrapped
from flagscope.checkpoint.derived.stacked import stacked_checkpoint
from flagscope.checkpoint.fingerprint import header_digest
from flagscope.checkpoint.folder import (
    INDEX_SUFFIX,
    names_weights,
    remote_weight_file,
    weight_file,
)
from flagscope.checkpoint.formats import check_remote, opened_file
from flagscope.checkpoint.hub import fetched_weights, is_commit, is_hub_name, seen_weights
from flagscope.checkpoint.leftovers import left_notes
from flagscope.checkpoint.lora.parts import factor_file, is_adapter
from flagscope.checkpoint.lora.settings import ADAPTER_CONFIG, adapter_weights
from flagscope.checkpoint.lora.weights import AdapterWeights
from flagscope.checkpoint.quantised.formats import unpacked
from flagscope.checkpoint.recipe import Recipe
from flagscope.checkpoint.remote.hub import HubPath
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.sharded import ShardedCheckpoint
from flagscope.errors import FlagscopeError, InputError, MissingFileError, SourceError
from flagscope.guard import guarded
from flagscope.masking import masked

_UNFORESEEN = (
    "the file may be damaged: fetch or save it again. If another tool reads it, report it with "
    "what --debug shows"
)


def open_checkpoint(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    fetch: bool = True,
    tensors: str | None = None,
) -> Checkpoint:
    """Open a checkpoint: the headers are read, the data when they are asked for.

    Parameters
    ----------
    source
        A file (.safetensors; .bin, .pt, .pth, .th, .ckpt as torch.save writes them; .npz; .gguf;
        .onnx; .keras, .h5; .msgpack of Flax), an index of shards, a folder, a PEFT adapter's
        folder, a folder that torch.distributed.checkpoint saved, or the name of a model on the
        Hugging Face hub. What exists on disk comes before a hub name. Or a URL that fsspec knows
        (s3://bucket/model/, https://…/model.safetensors), of safetensors alone: headers and tensors
        are fetched by ranges of bytes, never a whole file.
    revision
        Branch, tag or commit on the hub.
    config
        The model's configuration or its file, in place of the config.json next to the weights.
    base
        For an adapter: the model that it was trained on, in place of the one that its
        adapter_config.json names. That one is taken only if it lies in the adapter's folder or is
        the name of a model on the hub.
    fetch
        Whether the weights of a hub name are fetched into the hub's cache, as for a scan. False
        for looking at headers: safetensors that the cache lacks are then read by ranges of bytes.
    tensors
        Which group of tensors to read, where a file holds several (two models, or a model and the
        moving average of it): the keys that lead to it in a torch file with dots between them, or
        the start that the names of its tensors share. Several groups with commas between them are
        read as parts of one model.

    Returns
    -------
    Checkpoint
        Use it in a `with` block, or close it.

    Raises
    ------
    InputError
        If an argument is of the wrong type, a revision is given for a file, or there is no group
        `tensors`.
    MissingFileError
        If the file, a shard or the hub's model is not there.
    CorruptFileError
        If a file is truncated, inconsistent or not of its format.
    UnsafeFileError
        If a file holds no tensors that could be had without running pickled code.
    UnknownDtypeError
        If a file has a data type that its format does not know.
    UnforeseenError
        If it cannot be read for a reason that no check foresaw, as in a damaged file.
    SourceError
        If the format is not supported, the choice is not clear, or an adapter's base is not there.
    MissingExtraError
        If the format's optional package is not installed.

    Notes
    -----
    Of safetensors files, uncompressed npz files and files of PyTorch of either format, headers are
    read first, and then the bytes of what is asked for.

    Examples
    --------
    >>> import tempfile, pathlib, torch
    >>> from safetensors.torch import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.safetensors")
    ...     save_file({"fc.weight": torch.eye(3)}, path)
    ...     with open_checkpoint(folder) as checkpoint:
    ...         checkpoint.read("fc.weight", (slice(0, 1),))
    tensor([[1., 0., 0.]])
    """
    if not isinstance(source, (str, os.PathLike)) or not isinstance(os.fspath(source), str):
        raise InputError(
            f"source must be a path or a hub name, got {type(source).__name__}.",
            hint="pass a state dict to from_state_dict.",
        )
    named = _local(os.fspath(source))
    with guarded(f"reading {shown(named)}", hint=_UNFORESEEN):
        return _checkpoint(named, revision, config, base, fetch, tensors)


def open_stored(source: str, *, revision: str | None = None) -> Checkpoint:
    """As `open_checkpoint` without fetching; of an adapter its own tensors, and no base.

    Raises
    ------
    FlagscopeError
        As for `open_checkpoint`.
    """
    named = _local(source)
    with guarded(f"reading {shown(named)}", hint=_UNFORESEEN):
        return _checkpoint(named, revision, None, None, fetch=False, tensors=None, stored=True)


def reopened(recipe: Recipe) -> Checkpoint:
    """The checkpoint of a recipe.

    Raises
    ------
    SourceError
        If what stands there has other tensors than the one that the recipe was made of, and as
        for `open_checkpoint`.
    """
    checkpoint = open_checkpoint(
        recipe.source,
        revision=recipe.revision,
        config=recipe.config,
        base=recipe.base,
        tensors=recipe.tensors,
    )
    if header_digest(checkpoint) != recipe.header:
        checkpoint.close()
        raise SourceError(
            f"a worker finds other tensors in {checkpoint.source} than the scan was planned for.",
            hint="give a path or URL that is the same file on every machine.",
        )
    return stacked_checkpoint(checkpoint, dict(recipe.stacks))


def _checkpoint(
    named: str,
    revision: str | None,
    config: Mapping[str, Any] | str | os.PathLike[str] | None,
    base: str | os.PathLike[str] | None,
    fetch: bool,
    tensors: str | None,
    *,
    stored: bool = False,
) -> Checkpoint:
    path = _existing(named)
    # A URL is asked once which file it means; what is on disk may be a hub name's as well.
    far = _weights(named, revision) if path is None and "://" in named else None
    adapter = adapter_weights(path or far)
    if adapter is None and base is not None and (here := path or far) is not None:
        adapter = factor_file(here)
    settings = None if config is None else given_config(config)
    if adapter is not None and tensors is not None:
        raise InputError(
            f"tensors is given, but {shown(named)} is an adapter.",
            hint="leave it out; an adapter belongs to all of its base.",
        )
    if adapter is not None and stored:
        return AdapterWeights(adapter, source=shown(named)).file
    if adapter is not None and revision is None:
        under = _base(adapter, base)
        try:
            checkpoint = AdapterCheckpoint(adapter, under, source=shown(named), config=settings)
        except BaseException:
            under.close()
            raise
        return _with_recipe(checkpoint, named, None, base, settings, None)
    if base is not None:
        raise InputError(
            f"base is given, but {shown(named)} is no LoRA adapter.",
            hint=f"an adapter is a folder with {ADAPTER_CONFIG} and adapter_model.safetensors, or "
            "a safetensors file of LoRA factors alone.",
        )
    weights = far or _weights(named, revision, fetch=fetch)
    opened = _opened(
        weights,
        source=shown(named),
        config=settings,
        tensors=tensors,
        whole=path is not None and path.is_dir(),
    )
    if is_adapter(opened.tensors):
        opened.add_notes(
            "these are the factors of an adapter, taken as they are: with base=PATH (--base PATH) "
            "they are merged into a model"
        )
    if isinstance(weights, HubPath):
        opened.add_notes(
            "read on the hub by ranges of bytes, and not fetched; a scan fetches the files"
        )
    if path is None and isinstance(weights, Path) and is_commit(weights.parent.name):
        revision = weights.parent.name  # of the hub's cache: workers take the same commit
    return _with_recipe(opened, named, revision, None, settings, tensors)


def _opened(
    weights: Path | RemotePath,
    *,
    source: str,
    config: dict[str, Any] | None,
    tensors: str | None,
    whole: bool,
) -> Checkpoint:
    """A file or an index; `whole` says that the user named its folder."""
    file = weights if isinstance(weights, Path) else None
    if file is not None:
        refuse_optimizer(file)
    if config is None:
        config = config_beside(weights)
    if config is None and file is not None:
        config = config_beside(settings_folder(file) / file.name)
    if weights.name.endswith(INDEX_SUFFIX):
        stored = unwrapped(ShardedCheckpoint(weights, source=source, config=config))
    else:
        stored = opened_file(weights, source=source, config=config, tensors=tensors)
    try:
        shapes = {name: info.shape for name, info in stored.tensors.items()}
        refuse_empty(shapes, source=source, path=file)
        if file is not None:
            stored.add_notes(*left_notes(file, whole=whole))
        if tensors is None:
            stored = without_twins(stored)
        elif not stored.group:  # readers of nested objects choose the group themselves
            stored = part_of(stored, tensors)
        return whole_weights(unpacked(stored))
    except BaseException:
        stored.close()
        raise


def shown(named: str) -> str:
    """Source as the user named it, without the credentials that a URL may hold."""
    return masked(named)


def _local(named: str) -> str:
    """A path in place of a URL that says nothing else."""
    for start in ("file://", "local://"):
        if named.startswith(start):
            return unquote(named.removeprefix(start)) if start == "file://" else named[len(start) :]
    return named


def _with_recipe(
    checkpoint: Checkpoint,
    named: str,
    revision: str | None,
    base: str | os.PathLike[str] | None,
    config: dict[str, Any] | None,
    tensors: str | None,
) -> Checkpoint:
    """The checkpoint, which knows how to be opened elsewhere."""
    checkpoint.recipe = Recipe(
        source=_anywhere(named),
        revision=revision,
        base=None if base is None else _anywhere(os.fspath(base)),
        config=config,
        tensors=tensors,
        header=header_digest(checkpoint),
        opened=uuid.uuid4().hex,
    )
    return checkpoint


def _anywhere(named: str) -> str:
    """A path from the root of the file system; a URL or a hub name as it is."""
    path = _existing(named)
    return named if path is None else os.fspath(path.absolute())


def _base(adapter: Path | RemotePath, given: str | os.PathLike[str] | None) -> Checkpoint:
    """The model under an adapter."""
    base = named_base(adapter) if given is None else given
    if not isinstance(base, (str, os.PathLike)) or not os.fspath(base):
        raise InputError(f"base is {base!r}.", hint=GIVE_BASE)
    path = base if isinstance(base, Path) else None
    if given is not None:
        path = _existing(os.fspath(base))
    if path is not None:
        refuse_chain(adapter, path)
    try:
        if path is None and given is None:
            # A hub name alone: a folder of this name here is not what the file means.
            return _opened(
                fetched_weights(str(base), revision=None),
                source=str(base), config=None, tensors=None, whole=False,
            )  # fmt: skip
        return open_checkpoint(base if path is None else path)
    except FlagscopeError as error:
        raise SourceError(
            f"{adapter} is an adapter, and its base model {shown(os.fspath(base))!r} cannot be "
            f"opened: {error}",
            hint=GIVE_BASE,
        ) from error


def _weights(named: str, revision: str | None, *, fetch: bool = True) -> Path | RemotePath:
    path = _existing(named)
    if path is not None:
        if revision is not None:
            raise InputError(
                f"revision {revision!r} is given, but {named} is on this machine.",
                hint="leave the revision out; it applies to models on the hub.",
            )
        return weight_file(path) if path.is_dir() else path
    if "://" in named:
        if revision is not None:
            raise InputError(
                f"revision {revision!r} is given for a URL.",
                hint="leave the revision out; it applies to models on the hub.",
            )
        remote = RemotePath(named)
        if names_weights(remote.name):
            remote.forget()
        else:
            remote = remote_weight_file(remote)
        check_remote(remote)
        return remote
    if is_hub_name(named):
        find = fetched_weights if fetch else seen_weights
        return find(named, revision=revision)
    raise MissingFileError(
        f"{shown(named)!r} is neither a path that exists nor the name of a model on the hub.",
        hint="check the path; a hub name looks like gpt2 or org/model.",
    )


def _existing(named: str) -> Path | None:
    try:
        path = Path(named).expanduser()
        # A link to nothing is what the user named as well; the error says where it leads.
        return path if named and (path.exists() or path.is_symlink()) else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, no home folder
        return None
