"""Small residual networks of many seeds in one tensor program.

Seeds are groups of channels: a grouped convolution acts on each seed separately, and so does batch
normalisation, which acts on each channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# PyTorch's default.
_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class NormedConvolution:
    """A 3×3 convolution without bias, followed by batch normalisation, one for each seed.

    Attributes
    ----------
    weight
        Shape (seeds, out, in, 3, 3).
    gain, shift
        γ and β of the normalisation, shapes (seeds, out).
    stride
        Stride of the convolution.
    """

    weight: Float[Tensor, "seeds out in 3 3"]
    gain: Float[Tensor, "seeds out"]
    shift: Float[Tensor, "seeds out"]
    stride: int = 1

    def convolved(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Output before normalisation; channel axes are (seeds, in) and (seeds, out), flattened."""
        weight = self.weight.flatten(0, 1)
        return functional.conv2d(x, weight, stride=self.stride, padding=1, groups=len(self.weight))

    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Output, normalised by the statistics of the given batch."""
        return functional.batch_norm(
            self.convolved(x), None, None, self.gain.flatten(), self.shift.flatten(),
            training=True, eps=_EPSILON,
        )  # fmt: skip

    def folded(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "seeds out in 3 3"]:
        """The weight multiplied by the scale of the normalisation, from the variances on x."""
        variance = self.convolved(x).double().var((0, 2, 3), correction=0)
        scale = self.gain.double() * (variance.reshape(self.gain.shape) + _EPSILON).rsqrt()
        return self.weight.double() * scale[:, :, None, None, None]


@dataclass(frozen=True, eq=False)
class ResidualNetwork:
    """Networks of one shape, one for each seed: stem, basic blocks, average pooling, classifier.

    A block is ReLU(shortcut + conv2(ReLU(conv1))); a shortcut to a smaller image takes every second
    pixel and pads channels with zeros.
    """

    stem: NormedConvolution
    blocks: list[tuple[NormedConvolution, NormedConvolution]]
    weight: Float[Tensor, "seeds classes d"]
    bias: Float[Tensor, "seeds classes"]

    @property
    def parameters(self) -> list[Tensor]:
        """Parameters of every layer, stem first."""
        layers = [self.stem, *(layer for block in self.blocks for layer in block)]
        tensors = [p for layer in layers for p in (layer.weight, layer.gain, layer.shift)]
        return [*tensors, self.weight, self.bias]

    def features(self, x: Float[Tensor, "*seeds n h w"]) -> Float[Tensor, "seeds n d"]:
        """Input of the classifier."""
        *_, h = self._activations(x)
        return h.mean((-2, -1)).unflatten(1, (len(self.weight), -1)).transpose(0, 1)

    def __call__(self, x: Float[Tensor, "*seeds n h w"]) -> Float[Tensor, "seeds n classes"]:
        """The logits of every seed's network."""
        return torch.baddbmm(self.bias[:, None], self.features(x), self.weight.mT)

    def pairs(
        self, x: Float[Tensor, "n h w"]
    ) -> dict[str, tuple[Float[Tensor, "seeds d m1"], Float[Tensor, "seeds m2 d"]]]:
        """Adjacent maps, in float64: conv1 → conv2 of each block, and the last conv → classifier.

        Normalisation is folded into the write map, with its statistics on x. The shared spaces are
        those of channels: kernels and the other channels are columns of the write map and rows of
        the read map.
        """
        pairs = {}
        last = None
        for i, ((first, second), h) in enumerate(
            zip(self.blocks, self._activations(x), strict=False)
        ):
            read = second.weight.detach().double().movedim(2, -1).flatten(1, 3)
            pairs[f"block{i + 1}"] = first.folded(h).flatten(2), read
            last = second.folded(functional.relu(first(h))).flatten(2)
        if last is not None:
            pairs["last"] = last, self.weight.detach().double()
        return pairs

    def _activations(self, x: Tensor) -> Iterator[Tensor]:
        """Channels of all seeds after the stem and after every block."""
        seeds = len(self.weight)
        pictures = x.expand(seeds, *x.shape) if x.ndim == 3 else x
        h = functional.relu(self.stem(pictures.transpose(0, 1)))
        yield h
        for first, second in self.blocks:
            h = functional.relu(_shortcut(h, first, seeds) + second(functional.relu(first(h))))
            yield h


def _shortcut(h: Tensor, first: NormedConvolution, seeds: int) -> Tensor:
    if first.stride > 1:
        h = h[:, :, :: first.stride, :: first.stride]
    missing = first.weight.shape[1] - first.weight.shape[2]
    if missing:
        h = functional.pad(h.unflatten(1, (seeds, -1)), (0, 0, 0, 0, 0, missing)).flatten(1, 2)
    return h


def initial_residual_network(
    channels: Sequence[int],
    classes: int,
    seeds: Iterable[int],
    *,
    dtype: torch.dtype = torch.float32,
) -> ResidualNetwork:
    """Random networks that require gradients, one for each seed.

    Parameters
    ----------
    channels
        Channels of the stem and of each block; a block with more channels halves the image.
    classes
        Number of outputs.
    seeds
        Seeds, each with one network drawn from its own generator.
    dtype
        Data type of the parameters. Weights are drawn in float64 and then cast.

    Examples
    --------
    >>> network = initial_residual_network([4, 4, 8], classes=3, seeds=[0, 1])
    >>> tuple(network(torch.ones(5, 8, 8)).shape)
    (2, 5, 3)
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(fan_in: int, gain: float, *shape: int) -> Tensor:
        drawn = [torch.randn(*shape, dtype=torch.float64, generator=g) for g in generators]
        return (torch.stack(drawn) * (gain / sqrt(fan_in))).to(dtype).requires_grad_()

    def layer(before: int, after: int, stride: int = 1) -> NormedConvolution:
        weight = normal(9 * before, sqrt(2), after, before, 3, 3)
        gain = torch.ones(len(generators), after, dtype=dtype).requires_grad_()
        return NormedConvolution(weight, gain, torch.zeros_like(gain).requires_grad_(), stride)

    stem = layer(1, channels[0])
    blocks = [
        (layer(before, after, 2 if after > before else 1), layer(after, after))
        for before, after in pairwise(channels)
    ]
    weight = normal(channels[-1], 1.0, classes, channels[-1])
    bias = torch.zeros(weight.shape[:2], dtype=dtype).requires_grad_()
    return ResidualNetwork(stem, blocks, weight, bias)
