"""A line: matrices in the order of use, with a cut wherever the order is not known."""

from __future__ import annotations

from dataclasses import dataclass

from flagscope.arch.reading.modules import Matrix

ORDER = "the order in which they are used is not known"
UNNAMED = "what it is connected to is not known"
ASIDE = "beside the main path of a block"
BETWEEN = "something that could not be read stands next to it"
PARALLEL = "they may stand side by side"
BORDER = "what stands at the border of two modules is not known"
GATE = "one of three may be the gate of the first"
MISSING = "a module is missing between them"
RESIDUAL = "a block may add what it reads to what it writes"
LISTS = "lists that stand next to each other may take turns"


@dataclass(frozen=True)
class Item:
    """A matrix in a line.

    Attributes
    ----------
    norm, channels
        Path of the BatchNorm directly after it, and its length.
    normed
        Whether another norm follows it, or a norm whose position is not known.
    fronted
        Whether a norm precedes it.
    seat
        Path of the nn.Sequential that holds it, if numbers show that there is one.
    """

    matrix: Matrix
    norm: str | None = None
    normed: bool = False
    channels: int | None = None
    fronted: bool = False
    seat: str | None = None

    @property
    def written(self) -> int:
        """Length of its output, from its bias or norm if it has one."""
        if self.matrix.bias is not None:
            return self.matrix.bias[1]
        return self.matrix.shape[0] if self.channels is None else self.channels


@dataclass(frozen=True)
class Cut:
    """A place where the successor is not known, with the reason."""

    reason: str


Line = list[Item | Cut]


def ends(line: Line) -> tuple[int | None, int | None]:
    """Input length of a line's first matrix and output length of its last; None if not known."""
    first, last = (line[0], line[-1]) if line else (None, None)
    return (
        first.matrix.shape[1] if isinstance(first, Item) else None,
        last.written if isinstance(last, Item) else None,
    )


def follows(before: Line, after: Line) -> bool:
    """Whether one line can only follow the other: in parallel, it would not fit."""
    (entry, written), (read, _) = ends(before), ends(after)
    if written is None or read is None or entry is None:
        return False
    return reads(before, after) and entry != read


def reads(before: Line, after: Line) -> bool:
    """Whether a line can read the output of another one, possibly after flattening."""
    written, read = ends(before)[1], ends(after)[0]
    last, first = before[-1] if before else None, after[0] if after else None
    if written is None or read is None or not isinstance(last, Item) or not isinstance(first, Item):
        return False
    flattened = len(last.matrix.shape) > len(first.matrix.shape) == 2
    return read % written == 0 if flattened else read == written


def may_be_transposed(item: Item) -> bool:
    """Whether a convolution may be transposed, by its name or an even kernel."""
    kernel = item.matrix.shape[2:]
    even = all(n % 2 == 0 for n in kernel)
    return bool(kernel) and (even or goes_up(item.matrix.name) or goes_up(item.matrix.parent))


def goes_up(path: str) -> bool:
    """Whether a path ends in a name of layers that upsample.

    Examples
    --------
    >>> [goes_up(path) for path in ("up1", "net.upconvs.0", "deconv2", "group.0")]
    [True, True, True, False]
    """
    names = [part for part in path.lower().split(".") if not part.isdigit()]
    last = names[-1].rstrip("0123456789_") if names else ""
    known = ("up", "ups", "upconv", "upconvs", "up_conv", "up_convs", "deconv", "deconvs",
             "upsample", "upsamples", "upsampler", "transposed", "trans_conv", "conv_trans",
             "convtrans", "up_sample", "tconv", "conv_transpose", "upconvolution")  # fmt: skip
    return last in known
