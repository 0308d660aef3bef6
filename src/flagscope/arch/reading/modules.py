"""The modules that tensor names and shapes show: which hold matrices, norms, or neither."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

Shape = tuple[int, ...]
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Matrix:
    """A tensor that may hold one or several linear maps.

    Attributes
    ----------
    parent, name
        Path of the module in which it stands, and its name there: that of the module which holds
        it, or that of the parameter itself.
    tensor, shape
        Name and shape of the stored tensor.
    bias
        Name and length of the bias, if there is one.
    joint
        What stands between the module's name and "weight"; None for a bare parameter.
    position
        Place in the order of the tensors.
    """

    parent: str
    name: str
    tensor: str
    shape: Shape
    bias: tuple[str, int] | None
    joint: str | None
    position: int

    @property
    def path(self) -> str:
        """Path of the module, or name of the parameter."""
        return joined(self.parent, self.name)


@dataclass
class Module:
    """A node in the tree of modules.

    Attributes
    ----------
    path
        From the root, which has the path "".
    tensors
        Shapes of the tensors of its own, by parameter name.
    children
        Modules within it, in the order of the tensors.
    """

    path: str
    position: int
    tensors: dict[str, Shape] = field(default_factory=dict)
    children: dict[str, Module] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition(".")[2]

    @cached_property
    def own(self) -> tuple[Matrix, ...]:
        """Matrices among the tensors of its own."""
        return tuple(self._own())

    def _own(self) -> Iterator[Matrix]:
        parent, _, name = self.path.rpartition(".")
        for at, (parameter, shape) in enumerate(self.tensors.items()):
            if len(shape) < 2 or 0 in shape:
                continue
            tensor, position = joined(self.path, parameter), self.position + at
            if parameter == "weight" and self.path:
                yield Matrix(parent, name, tensor, shape, self._bias("bias"), ".", position)
            elif parameter.endswith("_weight"):
                stem = parameter.removesuffix("_weight")
                yield Matrix(
                    self.path, stem, tensor, shape, self._bias(f"{stem}_bias"), "_", position
                )  # fmt: skip
            else:
                bias = self._bias(*_biases(parameter))
                yield Matrix(self.path, parameter, tensor, shape, bias, None, position)

    def _bias(self, *names: str) -> tuple[str, int] | None:
        for name in names:
            shape = self.tensors.get(name, ())
            if len(shape) == 1:
                return joined(self.path, name), shape[0]
        return None

    @property
    def batchnorm(self) -> int | None:
        """Number of channels, where it is a BatchNorm."""
        shape = self.tensors.get("running_var", ())
        plain = not self.children and set(self.tensors) <= {"weight", "bias", *_RUNNING}
        return shape[0] if plain and len(shape) == 1 and "running_mean" in self.tensors else None

    @property
    def vector(self) -> int | None:
        """Length, where it holds a gain, with a bias or without: a norm or the like of one."""
        gain = next((self.tensors[n] for n in ("weight", "gamma", "w", "scale", "g")
                     if n in self.tensors), ())  # fmt: skip
        small = all(len(shape) <= 1 for shape in self.tensors.values())
        return gain[0] if small and not self.children and len(gain) == 1 and gain[0] else None

    @property
    def norm_length(self) -> int | None:
        """Length of what may be a norm of any kind."""
        return self.vector if self.batchnorm is None else self.batchnorm

    def walk(self) -> Iterator[Module]:
        """This module and all within it."""
        stack: list[Module] = [self]
        while stack:
            module = stack.pop()
            yield module
            stack.extend(reversed(module.children.values()))

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """All matrices within it."""
        return tuple(matrix for module in self.walk() for matrix in module.own)


def by_parent(matrices: Iterable[Matrix]) -> dict[str, list[Matrix]]:
    """Matrices by the module in which they stand."""
    groups: dict[str, list[Matrix]] = defaultdict(list)
    for matrix in matrices:
        groups[matrix.parent].append(matrix)
    return groups


def module_tree(shapes: Mapping[str, Shape]) -> Module:
    """The root of the tree of modules.

    Examples
    --------
    >>> root = module_tree({"net.0.weight": (8, 4), "net.0.bias": (8,), "net.1.weight": (8,)})
    >>> [(m.parent, m.name, m.bias) for m in root.matrices]
    [('net', '0', ('net.0.bias', 8))]
    >>> root.children["net"].children["1"].vector
    8
    """
    root = Module("", 0)
    for position, (tensor, shape) in enumerate(shapes.items()):
        *path, parameter = tensor.split(".")
        module = root
        for depth, part in enumerate(path):
            if part not in module.children:
                module.children[part] = Module(".".join(path[: depth + 1]), position)
            module = module.children[part]
        module.tensors[parameter] = shape
    return root


def in_order_of_use(shapes: Mapping[str, Shape]) -> bool:
    """Whether the order of the tensors can be that in which modules were made: not the alphabet's.

    Examples
    --------
    >>> in_order_of_use({"bn.weight": (3,), "conv.weight": (3, 3)})
    False
    """
    return any(before > after for before, after in pairwise(shapes))


def joined(parent: str, name: str) -> str:
    """A name within a module."""
    return f"{parent}.{name}" if parent else name


def _biases(parameter: str) -> tuple[str, ...]:
    """Names that the bias of a bare parameter has: b1 of W1, b_Q of W_Q, up_bias of up."""
    names = [f"{parameter}_bias"]
    if re.match(r"[wW](?![a-z])", parameter):
        names += ["b" + parameter[1:], "B" + parameter[1:]]
    return tuple(names)
