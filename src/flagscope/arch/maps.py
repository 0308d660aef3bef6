"""Linear maps in stored tensors: reading their matrices, and writing matrices back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from flagscope.arch.layout import Groups, axis_sizes, parse_layout, part_of_axis
from flagscope.arch.map_axes import MapAxes
from flagscope.errors import ArchitectureError, InputError

View = Literal["write", "read"]


@dataclass(frozen=True)
class LinearMap:
    """One linear map, or a batch of them over heads or experts, in one stored tensor.

    Maps act on columns: a matrix has its output along the rows. Axes that are neither output,
    input, batch nor selected are spatial (the kernel of a convolution).

    Parameters
    ----------
    role
        ``q``, ``k``, ``v``, ``o``, ``up``, ``gate``, ``down``, ``conv``, ``linear`` …
    tensor, shape
        Name and shape of the stored tensor.
    layout
        Einops pattern of the stored tensor, such as ``(h k) d`` or ``o i kh kw``.
    sizes
        Size of every axis of the layout.
    select
        Index along axes that hold other maps, such as ``{"three": 0}`` for Q in a fused QKV.
    window
        Part (start, length) of an axis that these maps occupy, if maps of several kinds follow each
        other along it, such as K after Q in the ``(s k) d`` of a fused QKV with fewer key heads
        than query heads.
    out, inp
        Output and input axis, or several (slowest first, separated by blanks) where all heads are
        taken together as one map of the stream.
    batch
        Axis of heads or experts (several, slowest first, separated by blanks), or None.
    bias
        Name of the tensor added to the output, or None.
    count
        Number of maps: the size of the batch, or 1.

    Raises
    ------
    ArchitectureError
        If layout, sizes, shape and axes do not fit together.

    References
    ----------
    The layout notation is that of einops: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> import torch
    >>> heads = LinearMap(role="q", tensor="q.weight", shape=(6, 4), layout="(h k) d",
    ...                   sizes={"h": 3, "k": 2, "d": 4}, out="k", inp="d", batch="h", count=3)
    >>> heads.write_matrices(torch.zeros(6, 4)).shape
    torch.Size([3, 2, 4])
    >>> heads.slice_text(1)
    '[2:4, :]'
    """

    role: str
    tensor: str
    shape: tuple[int, ...]
    layout: str
    sizes: Mapping[str, int]
    out: str
    inp: str
    select: Mapping[str, int] = field(default_factory=dict)
    batch: str | None = None
    bias: str | None = None
    count: int = 1
    window: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        axes = {name for group in self.groups for name in group}
        used = [*self.out_axes, *self.inp_axes, *self.select, *self.batch_axes]
        missing = (set(used) | set(self.sizes)) - axes
        if missing or set(self.sizes) != axes or len(set(used)) < len(used):
            raise self._broken("output, input, batch and selected axes must be distinct axes of it")
        if any(not 0 <= index < self.sizes[name] for name, index in self.select.items()):
            raise self._broken("a selected index is out of range")
        for name, (start, length) in self.window.items():
            if name not in axes or name in self.select:
                raise self._broken(f"the windowed axis {name!r} must be an axis not selected")
            if not 0 <= start < start + length <= self.sizes[name]:
                raise self._broken(f"{start}:{start + length} is no part of axis {name!r}")
        if prod(self.extent(name) for name in self.batch_axes) != self.count:
            raise self._broken(f"count is {self.count}, the batch axes give another number")
        if tuple(prod(self.sizes[n] for n in group) for group in self.groups) != self.shape:
            raise self._broken(f"axis sizes {dict(self.sizes)} do not give its shape")

    def _broken(self, reason: str) -> ArchitectureError:
        return ArchitectureError(
            f"tensor {self.tensor!r} of shape {self.shape} with layout {self.layout!r}: {reason}",
            hint="check the layout, out, inp, batch and select of this map in its family file",
        )

    @cached_property
    def groups(self) -> Groups:
        """Axis names, one tuple for each stored dimension."""
        return parse_layout(self.layout)

    @property
    def place(self) -> Hashable:
        """Key of the stored numbers and how they act: equal keys mean equal maps."""
        parts = (tuple(mapping.items()) for mapping in (self.sizes, self.select, self.window))
        return (self.tensor, self.layout, self.out, self.inp, self.batch, *parts)

    @property
    def out_axes(self) -> tuple[str, ...]:
        """Output axes, slowest first."""
        return tuple(self.out.split())

    @property
    def inp_axes(self) -> tuple[str, ...]:
        """Input axes, slowest first."""
        return tuple(self.inp.split())

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """Batch axes, slowest first."""
        return tuple(self.batch.split()) if self.batch else ()

    @property
    def spatial(self) -> tuple[str, ...]:
        """Axes that are neither output, input, batch nor selected."""
        taken = {*self.out_axes, *self.inp_axes, *self.select, *self.batch_axes}
        return tuple(name for group in self.groups for name in group if name not in taken)

    def joined(self, view: View) -> LinearMap:
        """All maps of the batch as one, with their outputs (write) or inputs (read) joined.

        Examples
        --------
        >>> heads = LinearMap(role="q", tensor="q.weight", shape=(6, 4), layout="(h k) d",
        ...                   sizes={"h": 3, "k": 2, "d": 4}, out="k", inp="d", batch="h", count=3)
        >>> heads.joined("write").outputs
        6
        """
        if self.batch is None:
            return self
        if view == "write":
            return replace(self, out=f"{self.batch} {self.out}", batch=None, count=1)
        return replace(self, inp=f"{self.batch} {self.inp}", batch=None, count=1)

    def extent(self, axis: str) -> int:
        """Size of an axis, or of the part of it that these maps occupy."""
        return self._axes.extent(axis)

    @cached_property
    def _axes(self) -> MapAxes:
        return MapAxes(self.sizes, self.select, self.window)

    @property
    def outputs(self) -> int:
        """Dimension of the output."""
        return prod(self.extent(name) for name in self.out_axes)

    @property
    def inputs(self) -> int:
        """Dimension of the input."""
        return prod(self.extent(name) for name in self.inp_axes)

    @cached_property
    def bias_layout(self) -> str:
        """Layout of the bias: the stored dimensions that hold neither input nor kernel."""
        dropped = {*self.inp_axes, *self.spatial}
        kept = [group for group in self.groups if not dropped & set(group)]
        return " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in kept)

    def index(self) -> tuple[slice, ...] | None:
        """The part of the stored tensor that must be read; None if that is all of it."""
        return self._index

    @cached_property
    def _index(self) -> tuple[slice, ...] | None:
        cut = [self._axes.cut(group) for group in self.groups]
        if all(selection == slice(None) for selection in cut):
            return None
        return tuple(cut)

    def moved(self, tensor: str, bias: str | None) -> LinearMap:
        """The same maps in another tensor of the same shape, with its bias.

        Examples
        --------
        >>> one = solved_map(role="up", tensor="a", shape=(6, 4), layout="f d", out="f", inp="d")
        >>> one.moved("b", None).tensor
        'b'
        """
        # A large network has tens of thousands of maps, most of which differ only in names: cached
        # and checked properties of this map hold for the other.
        _ = self._index
        other = object.__new__(LinearMap)
        other.__dict__.update(self.__dict__, tensor=tensor, bias=bias)
        return other

    def write_matrices(self, stored: Shaped[Tensor, "*stored"]) -> Shaped[Tensor, "count out m"]:
        """The maps as writers: rows are the output space, spatial axes join the inputs.

        Parameters
        ----------
        stored
            The stored tensor, or the part of it that `index` names.

        Returns
        -------
        Tensor
            Shape (count, out, in·spatial); a view where possible.

        Raises
        ------
        InputError
            If the tensor has another shape.
        """
        return self._matrices(stored, "write")

    def read_matrices(self, stored: Shaped[Tensor, "*stored"]) -> Shaped[Tensor, "count m inp"]:
        """The maps as readers: columns are the input space, spatial axes join the outputs.

        Same parameters and errors as `write_matrices`; shape (count, out·spatial, in).
        """
        return self._matrices(stored, "read")

    def replace(
        self,
        stored: Shaped[Tensor, "*stored"],
        matrices: Shaped[Tensor, "count rows columns"],
        *,
        view: View = "write",
    ) -> Shaped[Tensor, "*stored"]:
        """A copy of the stored tensor with these maps replaced: the inverse of the two views.

        Parameters
        ----------
        stored
            The stored tensor, or the part of it at `index`. It is not changed.
        matrices
            As `write_matrices` (view "write") or `read_matrices` (view "read") shapes them.

        Raises
        ------
        InputError
            If a shape differs.
        """
        return self._put(stored, matrices, self.groups, self._target(view))

    def bias_vectors(self, stored: Shaped[Tensor, "*stored"]) -> Shaped[Tensor, "n out"]:
        """The bias of each map, shape (count, out); (1, out) if all maps add the same bias."""
        groups = parse_layout(self.bias_layout)
        return rearrange(
            self._axes.selected(stored, groups, self.tensor),
            self._pattern(groups, self._bias_target()),
        )

    def replace_bias(
        self, stored: Shaped[Tensor, "*stored"], vectors: Shaped[Tensor, "n out"]
    ) -> Shaped[Tensor, "*stored"]:
        """A copy of the stored bias with these vectors in it: the inverse of `bias_vectors`."""
        return self._put(stored, vectors, parse_layout(self.bias_layout), self._bias_target())

    def slice_text(self, member: int) -> str:
        """Position of one of the maps, as a Python-like index; '[:]' for the whole tensor.

        Examples
        --------
        >>> fused = LinearMap(role="v", tensor="qkv.weight", shape=(18, 4), inp="d", batch="h",
        ...                   layout="(h three k) d", sizes={"h": 3, "three": 3, "k": 2, "d": 4},
        ...                   select={"three": 2}, out="k", count=3)
        >>> fused.slice_text(1)
        '[10:12, :]'
        """
        if not 0 <= member < self.count:
            raise InputError(
                f"member {member} of {self.count} maps in {self.tensor!r}",
                hint=f"give an index from 0 to {self.count - 1}",
            )
        fixed = dict(self.select)
        for name in reversed(self.batch_axes):
            member, index = divmod(member, self.extent(name))
            fixed[name] = index + self.window.get(name, (0, 0))[0]
        parts = [self._axes.range_text(group, fixed) for group in self.groups]
        return "[:]" if all(part == ":" for part in parts) else f"[{', '.join(parts)}]"

    def _target(self, view: View) -> str:
        batch = f"({' '.join(self.batch_axes)})" if self.batch_axes else "1"
        extra = " ".join(self.spatial)
        if view == "write":
            return f"{batch} ({self.out}) ({self.inp} {extra})"
        return f"{batch} ({self.out} {extra}) ({self.inp})"

    def _bias_target(self) -> str:
        batch = [name for name in self.batch_axes if name in self.bias_layout.strip("()").split()]
        return f"({' '.join(batch)}) ({self.out})" if batch else f"1 ({self.out})"

    def _pattern(self, groups: Groups, target: str) -> str:
        kept = [name for group in groups for name in group if name not in self.select]
        return f"{' '.join(kept)} -> {target}"

    def _matrices(self, stored: Tensor, view: View) -> Tensor:
        part = self._axes.selected(stored, self.groups, self.tensor)
        return rearrange(part, self._pattern(self.groups, self._target(view)))

    def _put(self, stored: Tensor, values: Tensor, groups: Groups, target: str) -> Tensor:
        result = stored.clone().contiguous()
        place = self._axes.selected(result, groups, self.tensor)
        expected = rearrange(place, self._pattern(groups, target)).shape
        if values.shape != expected:
            raise InputError(
                f"values for {self.tensor!r} must have shape {tuple(expected)}, "
                f"got {tuple(values.shape)}",
                hint="pass them in the shape in which the map gave them",
            )
        kept, _, shape = self._pattern(groups, target).partition(" -> ")
        sizes = {n: self.extent(n) for n in kept.split()}
        place.copy_(rearrange(values, f"{shape} -> {kept}", **sizes))
        return result


def solved_map(
    *,
    role: str,
    tensor: str,
    shape: tuple[int, ...],
    layout: str,
    out: str,
    inp: str,
    known: Mapping[str, int] | None = None,
    select: Mapping[str, int] | None = None,
    batch: str | None = None,
    bias: str | None = None,
    window: Mapping[str, str] | None = None,
) -> LinearMap:
    """A `LinearMap`, with its remaining axis sizes solved from the shape and the known sizes.

    Raises
    ------
    ArchitectureError
        If sizes remain open, or contradict the shape.

    References
    ----------
    The layout notation is that of einops: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> solved_map(role="q", tensor="w", shape=(6, 4), layout="(h k) d", out="k", inp="d",
    ...            known={"h": 3}, batch="h").count
    3
    """
    sizes, complete = axis_sizes(parse_layout(layout), shape, known or {})
    if not complete:
        raise ArchitectureError(
            f"tensor {tensor!r} of shape {shape}: {layout!r} leaves axis sizes open",
            hint="give the number of heads (--heads N) or the model's config (--config F)",
        )
    every = {**(known or {}), **sizes}
    parts = {axis: part_of_axis(text, axis, every) for axis, text in (window or {}).items()}
    extents = {**sizes, **{axis: length for axis, (_, length) in parts.items()}}
    count = prod(extents[name] for name in batch.split()) if batch else 1
    return LinearMap(
        role=role, tensor=tensor, shape=shape, layout=layout, sizes=sizes, out=out, inp=inp,
        select=dict(select or {}), batch=batch, bias=bias, count=count, window=parts,
    )  # fmt: skip
