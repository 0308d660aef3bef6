"""Loads images for the experiments: bundled with scikit-learn, or from the user's files."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import CorruptFileError, InputError, MissingFileError
from flagscope.lab.experiment import DataKind
from flagscope.lab.extra import lab_package

# Training files of the original MNIST and of Fashion-MNIST.
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_HINT = "digits, FILE.npz, a folder of idx files, FILE.txt, or pydoc"


@dataclass(frozen=True)
class Images:
    """Images as vectors, with their classes.

    Attributes
    ----------
    name
        Source of the images.
    inputs
        Shape (n, features), each feature in [0, 1].
    labels
        Shape (n,), 0 … classes - 1.
    classes
        Number of classes.
    """

    name: str
    inputs: Float[Tensor, "n features"]
    labels: Int[Tensor, " n"]
    classes: int

    def one_hot(self) -> Float[Tensor, "n classes"]:
        """One-hot targets of a regression on the classes."""
        return torch.nn.functional.one_hot(self.labels, self.classes).to(self.inputs.dtype)

    def centred(self, *, largest: float | None = None) -> Float[Tensor, "n features"]:
        """Inputs minus their mean, scaled to a largest eigenvalue of their covariance, if given.

        The curvature of a loss, and so the largest stable step size, depends on that eigenvalue: it
        is 0.7 for the digits and 6 for MNIST.

        Examples
        --------
        >>> x = load_images().centred(largest=1.0)
        >>> round(float(torch.linalg.eigvalsh(x.mT @ x / len(x))[-1]), 6)
        1.0
        """
        x = self.inputs - self.inputs.mean(0)
        if largest is None:
            return x
        return x * (largest / torch.linalg.matrix_norm(x, 2).square() * len(x)).sqrt()


def kind_of_source(source: str) -> DataKind:
    """Kind of a source, images or text, by its name.

    Examples
    --------
    >>> kind_of_source("digits"), kind_of_source("pydoc"), kind_of_source("a/b.npz")
    ('images', 'text', 'images')
    """
    if source == "pydoc" or source.endswith(".txt"):
        return "text"
    if source == "digits" or source.endswith(".npz") or Path(source).is_dir():
        return "images"
    raise InputError(f"{source!r} is not a source of data for the laboratory", hint=_HINT)


def source_digest(source: str | None) -> str | None:
    """SHA-256 of the content of a data source; None for bundled data.

    A different file under the same name counts as different data.

    Examples
    --------
    >>> source_digest("digits") is None
    True
    """
    if source is None or source in ("digits", "pydoc"):
        return None
    path = Path(source)
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.glob("*-ubyte*") if file.is_file())
    )
    marks = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _digest(marks) if marks else None


@cache
def _digest(marks: tuple[tuple[str, int, int], ...]) -> str:
    """SHA-256 of files, cached while their sizes and modification times stay the same."""
    total = hashlib.sha256()
    for name, *_ in marks:
        total.update(hashlib.sha256(Path(name).read_bytes()).digest())
    return total.hexdigest()


def load_images(
    source: str | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    limit: int | None = None,
    seed: int = 0,
) -> Images:
    """Load images: "digits" (default), an .npz file such as MNIST's, or a folder of idx files.

    Parameters
    ----------
    source
        "digits" are scikit-learn's 1797 handwritten digits of 8 × 8 pixels. An .npz file holds
        x_train and y_train, a folder the idx files of MNIST or Fashion-MNIST, gzipped or not.
    dtype
        Data type of the inputs.
    limit
        Largest number of images, taken after shuffling.
    seed
        Seed of the shuffling, since files are often ordered by class.

    Raises
    ------
    MissingExtraError
        If scikit-learn, which holds the digits, is not installed.
    SourceError
        If a file is missing or malformed.

    Examples
    --------
    >>> digits = load_images()
    >>> tuple(digits.inputs.shape), digits.classes
    ((1797, 64), 10)
    """
    if source is None or source == "digits":
        digits = lab_package("sklearn.datasets").load_digits()
        inputs, labels, name = digits.data / 16.0, digits.target, "digits"
    else:
        pixels, labels = _npz(source) if source.endswith(".npz") else _idx_folder(source)
        inputs, name = pixels.reshape(len(pixels), -1) / 255.0, source
    if len(inputs) != len(labels) or not len(labels):
        raise CorruptFileError(f"{name} has {len(inputs)} images and {len(labels)} labels")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:limit]
    targets = torch.as_tensor(np.asarray(labels, dtype=np.int64))[order]
    chosen = torch.as_tensor(inputs[order.numpy()]).to(dtype)
    return Images(name, chosen, targets, int(labels.max()) + 1)


def split_indices(
    n: int, held_out: float, *, seed: int
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Indices of a random split into training and held-out images.

    Examples
    --------
    >>> kept, held = split_indices(10, 0.3, seed=0)
    >>> len(kept), len(held), sorted([*kept.tolist(), *held.tolist()]) == list(range(10))
    (7, 3, True)
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    size = round(n * held_out)
    return order[size:], order[:size]


def _npz(source: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as file:
            return file["x_train"], file["y_train"]
    except KeyError as error:
        raise CorruptFileError(f"{source} has no arrays x_train and y_train") from error
    except FileNotFoundError as error:
        raise _unreadable(source, error) from error
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{source} is not an .npz file of images: {error}") from error


def _idx_folder(source: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (_idx(Path(source) / name) for name in _IDX)
    return images, labels


def _idx(path: Path) -> np.ndarray:
    """Read an array of bytes in idx format: two zeros, type 8, number of axes, sizes, values."""
    zipped = path.with_name(path.name + ".gz")
    try:
        raw = gzip.decompress(zipped.read_bytes()) if zipped.exists() else path.read_bytes()
    except (OSError, EOFError) as error:
        raise _unreadable(str(path), error) from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise CorruptFileError(f"{path} is not an idx file of bytes")
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4) if len(raw) >= 4 + 4 * axes else []
    if len(raw) != 4 + 4 * axes + int(np.prod(shape, dtype=np.int64)):
        raise CorruptFileError(f"{path} is cut short: its header says {list(map(int, shape))}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape([int(s) for s in shape])


def _unreadable(source: str, error: Exception) -> MissingFileError:
    reason = getattr(error, "strerror", None) or error
    return MissingFileError(f"{source} cannot be read: {reason}", hint=_HINT)
