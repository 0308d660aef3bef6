"""The one interface in front of every checkpoint format."""

from __future__ import annotations

import difflib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from flagscope.checkpoint.dtypes import stored_dtype
from flagscope.checkpoint.indexing import Index, index_shape, resolved_index
from flagscope.checkpoint.recipe import Recipe
from flagscope.checkpoint.scales import (
    companion_names,
    scale_names,
    spread_scale,
    unscaled_note,
)
from flagscope.errors import CorruptFileError, InputError
from flagscope.shortening import shortened_notes
from flagscope.wiring import Wiring


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Header entry of one stored tensor.

    Attributes
    ----------
    name
        Name of the tensor in the checkpoint.
    shape
        Its shape; `()` for a scalar.
    dtype
        Its data type by PyTorch's name without `torch.` ("float32", "float8_e4m3fn"), or by the
        format's own name where PyTorch has none ("F6_E2M3").
    nbytes
        Bytes that its elements take.
    file
        Path of the file that holds it, None for a tensor in memory.
    quantised
        The format's name of the type that the values were rounded to ("Q4_0"), where `read`
        dequantises: `dtype` and `nbytes` are then those of what it gives. None otherwise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    file: str | None = None
    quantised: str | None = None


class Checkpoint(ABC):
    """Named tensors, of which only the headers are read until a tensor is asked for.

    Also a context manager that closes its files. A reader of files can be pickled: the copy
    opens the files again. Reading from several threads is safe, closing meanwhile is not.

    Parameters
    ----------
    source
        What the user named: a path, a hub name.
    entries
        The tensors by name.
    config
        The model's configuration (config.json), unchanged.
    notes
        What was passed over while reading the header, in words.

    Attributes
    ----------
    recipe
        How to open it again elsewhere, see `reopened`; None for weights in memory.
    wiring
        Order of the maps in the file's own graph; None where it holds none.
    group
        Which of several groups of tensors this is, "" where there is one alone.
    stored_config
        Settings that the file of the weights holds itself (hyperparameters of a training script),
        plain values alone; None where there are none.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        entries: Mapping[str, TensorInfo],
        *,
        config: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if not entries:
            raise CorruptFileError(
                f"{os.fspath(source)} holds no tensors.",
                hint="give a checkpoint that holds a model's weights.",
            )
        self._source = os.fspath(source)
        self._config = config
        self._tensors = dict(entries)
        dtypes = {name: info.dtype for name, info in self._tensors.items()}
        self._scales = scale_names(dtypes)
        self._scaled = frozenset(self._scales)
        companions = companion_names(dtypes.keys(), self._scaled)
        self._auxiliary = frozenset({*self._scales.values(), *companions})
        shapes = {name: info.shape for name, info in self._tensors.items()}
        self._header_notes = tuple(dict.fromkeys(notes))
        self._notes = (*self._header_notes, *unscaled_note(dtypes, shapes, self._scales))
        self._closed = False
        self.recipe: Recipe | None = None
        self.wiring: Wiring | None = None
        self.group = ""
        self.stored_config: dict[str, Any] | None = None

    @property
    def source(self) -> str:
        """What the user named: a path, a hub name."""
        return self._source

    @property
    def config(self) -> dict[str, Any] | None:
        """The model's configuration as stored next to the weights, None where there is none."""
        return self._config

    @property
    def notes(self) -> tuple[str, ...]:
        """Entries that were passed over, in words: entries that are not tensors, further models."""
        return tuple(shortened_notes(self._notes))

    def add_notes(self, *notes: str) -> None:
        """Add to the notes what only who opened the checkpoint knows."""
        self._header_notes += notes
        self._notes = (*notes, *self._notes)

    @property
    def header_notes(self) -> tuple[str, ...]:
        """The notes less those on scales, which a checkpoint made of this one makes anew."""
        return self._header_notes

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Header of every tensor by name, in the order of the file. Read-only."""
        return MappingProxyType(self._tensors)

    @property
    def auxiliary(self) -> frozenset[str]:
        """Names of tensors that are not weights: what `scale` reads, and scales of activations."""
        return self._auxiliary

    @property
    def scaled(self) -> frozenset[str]:
        """Names of the tensors that have a scale."""
        return self._scaled

    @property
    def buffers(self) -> frozenset[str] | None:
        """Names of the tensors that are not parameters; None where names are all there is to go by.

        A live module says which of its tensors are buffers; a file does not.
        """
        return None

    def memory(self, name: str) -> Hashable | None:  # noqa: ARG002
        """Storage of a tensor: equal for two that share it. None where each has its own bytes."""
        return None

    def runs(
        self,
        wanted: Sequence[tuple[str, int, int]],  # noqa: ARG002
        *,
        spare: float = math.inf,  # noqa: ARG002
    ) -> list[bytes] | None:
        """Bytes start … stop of the row-major data of many tensors, by their names.

        Only readers to which every request costs time give them; None from all others. They read
        what lies between two runs where that saves a request: at most the share `spare` of a file,
        or 64 KiB if that is more.
        """
        return None

    def scale_name(self, name: str) -> str | None:
        """Name of the tensor that scales another; None if none does."""
        return self._scales.get(name)

    def scale(self, name: str, index: Index | None = None) -> Float[Tensor, "*shape"] | None:
        """Factor by which what `read` gives is to be multiplied; see `widen` and `storage_noise`.

        Scaled formats store a weight over a factor, which lies next to it under a name such as
        `<weight>_scale` or `<weight>_scale_inv`: for a whole tensor, each row, or each block of
        128 × 128 (DeepSeek-AI, arXiv 2412.19437, section 3.3.2).

        Parameters
        ----------
        name, index
            As for `read`.

        Returns
        -------
        Tensor or None
            Without axes if one factor holds for all elements, else of the shape of what `read`
            gives. None where the stored numbers are the weights.

        Raises
        ------
        CorruptFileError
            If the scale does not fit the tensor.
        InputError, UnknownDtypeError
            As for `read`.

        Examples
        --------
        >>> import torch
        >>> from flagscope.checkpoint import from_state_dict
        >>> stored = torch.full((256, 128), 2.0).to(torch.float8_e4m3fn)
        >>> scales = {"a.weight": stored, "a.weight_scale_inv": torch.tensor([[0.5], [3.0]])}
        >>> from_state_dict(scales).scale("a.weight", (slice(127, 129), slice(0, 1))).tolist()
        [[0.5], [3.0]]
        """
        return self._scale(name, self._resolved(name, index))

    def step(self, name: str, index: Index | None = None) -> Float[Tensor, "*shape"] | None:
        """Spacing of the grid that each weight was rounded to, where the format's grid is its own.

        Parameters
        ----------
        name, index
            As for `read`.

        Returns
        -------
        Tensor or None
            float32, of the shape of what `read` gives. None where the spacing is that of the
            stored floating-point type times `scale`, or is not known.

        Raises
        ------
        InputError, CorruptFileError, UnknownDtypeError
            As for `read`.
        """
        return self._step(name, self._resolved(name, index))

    def read(self, name: str, index: Index | None = None) -> Shaped[Tensor, "*shape"]:
        """Read one tensor, or a slice of it, in the data type it is stored in.

        Parameters
        ----------
        name
            A key of `tensors`.
        index
            One integer or slice (of step 1) per leading axis; None for the whole tensor. Where
            the format allows, only the slice is read from disk.

        Returns
        -------
        Tensor
            On the CPU for files. It may share memory with the file's mapping or with the mapping
            given to `from_state_dict`: do not write to it. NaN and infinity come as stored.

        Raises
        ------
        InputError
            If there is no such tensor, the index does not fit, or the checkpoint is closed.
        UnknownDtypeError
            If its data type cannot be read exactly.
        CorruptFileError
            If the data disagree with the header.
        """
        info = self._info(name)
        stored_dtype(info.dtype, tensor=name)
        resolved = self._resolved(name, index)
        tensor = self._read(name, resolved)
        expected = index_shape(resolved, info.shape)
        if tuple(tensor.shape) != expected:
            raise CorruptFileError(
                f"tensor {name!r} of {self.source}: the header says {expected}, "
                f"the data have {tuple(tensor.shape)}.",
                hint="the file is damaged; fetch or save it again.",
            )
        return tensor.detach()

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """Name and state (size, tag, time of change) of each file when it was opened, by path."""
        return {}

    @property
    def is_remote(self) -> bool:
        """Whether its files lie behind URLs, so that each reading costs a request."""
        return False

    def close(self) -> None:
        """Let go of the files. Tensors already read stay valid; reading again is an error."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r}, {len(self._tensors)} tensors)"

    def _info(self, name: str) -> TensorInfo:
        if self._closed:
            raise InputError(
                f"{self.source} is closed.", hint="open it again, or read inside its with block."
            )
        try:
            return self._tensors[name]
        except (KeyError, TypeError):
            near = difflib.get_close_matches(str(name), self._tensors, n=3)
            raise InputError(
                f"{self.source} holds no tensor {name!r}.",
                hint=f"did you mean {' or '.join(map(repr, near))}?"
                if near
                else "the keys of .tensors are the names it holds.",
            ) from None

    def _resolved(self, name: str, index: Index | None) -> Index:
        """An index with one entry for every axis of a tensor."""
        return resolved_index(() if index is None else index, self._info(name).shape, tensor=name)

    def _scale(self, name: str, index: Index) -> Tensor | None:
        """`scale` by an index that is resolved for every axis."""
        if name not in self._scales:
            return None
        info, beside = self._tensors[name], self._scales[name]
        return spread_scale(
            self.read(beside), index, info.shape, tensor=name, name=beside, config=self._config
        )

    def _step(self, name: str, index: Index) -> Tensor | None:
        """`step` by an index that is resolved for every axis."""
        if self._tensors[name].dtype != "int8":
            return None
        scale = self._scale(name, index)  # integers lie one apart
        if scale is None:
            return None
        return scale.to(torch.float32).expand(index_shape(index, self._tensors[name].shape))

    @abstractmethod
    def _read(self, name: str, index: Index) -> Tensor:
        """`read` by an index that is resolved for every axis."""

    def _release(self) -> None:  # noqa: B027 - a reader without open files has nothing to do
        """Close what is open."""
