"""Makes the names of pairs unique within a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from flagscope.arch.graph import PairGroup

Pairs = tuple[PairGroup, ...]


def with_own_names(pairs: Sequence[PairGroup]) -> Pairs:
    """The pairs, with a unique name for each member.

    Two blocks of one layer may have the same label, for example an MLP and an adapter. The modules
    of their maps distinguish them, or else a number.

    References
    ----------
    Module names are those of the tensors: PyTorch documentation, "torch.nn.Module".

    Examples
    --------
    >>> from flagscope.arch import build_graph
    >>> graph = build_graph({"0.weight": (8, 4), "2.weight": (3, 8)})
    >>> with_own_names(graph.pairs) == graph.pairs
    True
    """
    renamed = tuple(pairs)
    for suffix_of in (_writer, _both):
        shared = _shared(renamed)
        if not shared:
            return renamed
        renamed = tuple(
            _renamed(pair, suffix_of(pair)) if _meets(pair, shared) else pair for pair in renamed
        )
    met: Counter[str] = Counter()
    numbered, shared = [], _shared(renamed)
    for pair in renamed:
        met[pair.name] += 1
        again = _meets(pair, shared) and met[pair.name] > 1
        numbered.append(_renamed(pair, f"#{met[pair.name]}") if again else pair)
    return tuple(numbered)


def _shared(pairs: Pairs) -> set[str]:
    counts = Counter(member.name for pair in pairs for member in pair.members)
    return {name for name, count in counts.items() if count > 1}


def _meets(pair: PairGroup, names: set[str]) -> bool:
    return any(member.name in names for member in pair.members)


def _renamed(pair: PairGroup, suffix: str) -> PairGroup:
    def label(name: str) -> str:
        return f"{name.partition(' (')[0]} ({suffix})"

    members = tuple(replace(member, name=label(member.name)) for member in pair.members)
    return replace(pair, name=label(pair.name), members=members)


def _writer(pair: PairGroup) -> str:
    return pair.write.map.tensor.removesuffix(".weight")


def _both(pair: PairGroup) -> str:
    return f"{_writer(pair)} to {pair.read.map.tensor.removesuffix('.weight')}"
