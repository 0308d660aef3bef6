"""The tree of modules implied by tensor names and shapes, with their matrices and norms."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

Shape = tuple[int, ...]
# Biases with an axis of heads, masks, and tables of angles.
_NO_MAP = re.compile(
    r"(?:\w+_)?bias(?:es)?(?:_\w+)?|(?:\w+_)?mask|tril|triu|(?:\w+_)?(?:sin|cos)(?:_cached?)?"
)
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Matrix:
    """A tensor that may hold one or several linear maps.

    Attributes
    ----------
    parent, name
        Path of the parent module, and the name within it: that of the module which holds the
        tensor, or that of a bare parameter.
    tensor, shape
        Name and shape of the stored tensor.
    bias
        Name and length of the bias, if there is one.
    bias_shape
        Shape of the bias, which may have an axis of heads; () without a bias.
    joint
        Text between the module's name and "weight"; None for a bare parameter.
    position
        Position in the order of the tensors.
    """

    parent: str
    name: str
    tensor: str
    shape: Shape
    bias: tuple[str, int] | None
    joint: str | None
    position: int
    bias_shape: Shape = ()

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
        Path from the root, whose path is "".
    tensors
        Shapes of its own tensors, by parameter name.
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
        """Matrices among its own tensors."""
        return tuple(self._own())

    def _own(self) -> Iterator[Matrix]:
        parent, _, name = self.path.rpartition(".")
        for index, (parameter, shape) in enumerate(self.tensors.items()):
            if len(shape) < 2 or 0 in shape or self._is_no_map(parameter):
                continue
            tensor, position = joined(self.path, parameter), self.position + index
            over, own, joint = self.path, parameter, None
            biases = _biases(parameter)
            if parameter == "weight" and self.path:
                over, own, joint, biases = parent, name, ".", ("bias",)
            elif parameter.endswith("_weight"):
                own, joint = parameter.removesuffix("_weight"), "_"
                biases = (f"{own}_bias",)
            bias_entry = next(
                ((b, self.tensors[b]) for b in biases if self.tensors.get(b)), ("", ())
            )
            bias = (
                (joined(self.path, bias_entry[0]), bias_entry[1][0])
                if len(bias_entry[1]) == 1
                else None
            )
            yield Matrix(over, own, tensor, shape, bias, joint, position, bias_entry[1])

    def _is_no_map(self, parameter: str) -> bool:
        """Whether a tensor is a bias with an axis of heads, or a mask, and so not a map."""
        if _NO_MAP.fullmatch(parameter.lower()):
            return True
        shape = self.tensors[parameter]
        owners = (whole for name, whole in self.tensors.items() if parameter in _biases(name))
        return any(len(whole) == len(shape) + 1 and {*shape} <= {*whole} for whole in owners)

    @property
    def batchnorm(self) -> int | None:
        """Number of channels, if it is a BatchNorm."""
        shape = self.tensors.get("running_var", ())
        plain = not self.children and set(self.tensors) <= {"weight", "bias", *_RUNNING}
        return shape[0] if plain and len(shape) == 1 and "running_mean" in self.tensors else None

    @property
    def vector(self) -> int | None:
        """Length, if it holds a gain with or without a bias: a norm or similar."""
        gain = next((self.tensors[n] for n in ("weight", "gamma", "w", "scale", "g")
                     if n in self.tensors), ())  # fmt: skip
        small = all(len(shape) <= 1 for shape in self.tensors.values())
        return gain[0] if small and not self.children and len(gain) == 1 and gain[0] else None

    @property
    def vectors(self) -> tuple[tuple[str, int], ...]:
        """Names and lengths of its own one-dimensional tensors that are not a map's bias."""
        biases = {matrix.bias[0] for matrix in self.own if matrix.bias}
        return tuple((name, shape[0]) for own, shape in self.tensors.items() if len(shape) == 1
                     and (name := joined(self.path, own)) not in biases)  # fmt: skip

    def at(self, path: str) -> Module | None:
        """The descendant at a relative path."""
        module: Module | None = self
        for part in path.split(".") if path else ():
            module = module.children.get(part) if module else None
        return module

    @property
    def norm_length(self) -> int | None:
        """Length, if it may be a norm of any kind."""
        return self.vector if self.batchnorm is None else self.batchnorm

    def walk(self) -> Iterator[Module]:
        """This module and all its descendants."""
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
    """Matrices by parent module."""
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
    """Whether tensors may be in the order in which modules were made: they are not sorted by name.

    Examples
    --------
    >>> in_order_of_use({"bn.weight": (3,), "conv.weight": (3, 3)})
    False
    """
    return any(before > after for before, after in pairwise(shapes))


def joined(parent: str, name: str) -> str:
    """Join the path of a module and a name within it."""
    return f"{parent}.{name}" if parent else name


def _biases(parameter: str) -> tuple[str, ...]:
    """Names that the bias of a bare parameter may have: b1 of W1, b_Q of W_Q, up_bias of up."""
    names = [f"{parameter}_bias"]
    match = re.fullmatch(r"(_?)[wW](?![a-z])(.*)", parameter)
    if match is not None:
        names += [f"{match[1]}{letter}{match[2]}" for letter in "bB"]
    return tuple(names)
