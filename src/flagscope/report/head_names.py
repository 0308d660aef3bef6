"""Names of the heads of a group: with shared keys and values there are two numberings."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records import HeadRecord, PairRecord, ScanResult
from flagscope.report.wording import joined, ranges

_Place = tuple[str, str | None, int]


class HeadNames:
    """The names of heads in sentences.

    In grouped-query attention query heads and outputs have one numbering, key-value heads another.
    A sentence then says which of the two it means, and which query heads a key-value head serves.

    Parameters
    ----------
    result
        The scan that the heads belong to.
    """

    def __init__(self, result: ScanResult) -> None:
        self._stacks = len({group.stack for group in result.heads}) > 1
        self._served: dict[_Place, dict[int, set[int]]] = {}
        queries: dict[_Place, int] = {}
        shared: dict[_Place, int] = {}
        for group in result.heads:
            counts = queries if group.space in ("q", "o") else shared
            counts[_place(group)] = group.count
        # In runs of equal length, unless the pairs of the scan say otherwise.
        for place, few in shared.items():
            many = queries.get(place, few)
            run = many // few if many % few == 0 else 0
            self._served[place] = {j: set(range(j * run, (j + 1) * run)) for j in range(few)}
        for place, heads in _paired(result.pairs).items():
            self._served.setdefault(place, {}).update(heads)

    def layer(self, group: HeadRecord) -> str:
        """Name as in ``"layer 4"``, with the stack in front where there are several."""
        return f"{group.stack} layer {group.layer}" if self._stacks else f"layer {group.layer}"

    def layers(self, groups: Sequence[HeadRecord]) -> str:
        """Names as in ``"layers 0–4"``, of groups of one stack."""
        depths = sorted({group.layer for group in groups})
        text = f"layer{'s' if len(depths) > 1 else ''} {ranges(depths)}"
        return f"{groups[0].stack} {text}" if self._stacks else text

    def noun(self, group: HeadRecord) -> str:
        """``"heads"``, or which of two numberings is meant."""
        served = self._served.get(_place(group), {})
        if all(len(heads) <= 1 for heads in served.values()):
            return "heads"
        return "query heads" if group.space in ("q", "o") else "key-value heads"

    def some(self, group: HeadRecord, heads: Sequence[int]) -> str:
        """Some heads of a group, to begin a sentence with, and the query heads that they serve.

        As in ``"Key-value heads 0 and 1 of layer 3 (which serve query heads 0–3 and 4–7)"``.
        """
        noun = self.noun(group)
        text = f"{noun[0].upper()}{noun[1:]} {joined(heads, limit=12)} of {self.layer(group)}"
        return f"{text}{self.serving(group, heads)}"

    def serving(self, group: HeadRecord, heads: Sequence[int]) -> str:
        """As in ``" (which serve query heads 0–3 and 4–7)"``; empty for one numbering."""
        if self.noun(group) != "key-value heads":
            return ""
        served = [ranges(sorted(self.served(group, head))) for head in heads]
        return f" (which serve query heads {joined(served, limit=4)})" if all(served) else ""

    def served(self, group: HeadRecord, head: int) -> set[int]:
        """The query heads that a key-value head serves; empty where that is not known."""
        return self._served.get(_place(group), {}).get(head, set())


def _place(group: HeadRecord) -> _Place:
    return group.stack, group.attention, group.layer


def _paired(pairs: Sequence[PairRecord]) -> dict[_Place, dict[int, set[int]]]:
    """The query heads of each key-value head, as the pairs name them."""
    served: dict[_Place, dict[int, set[int]]] = {}
    for pair in pairs:
        if pair.layer is not None and pair.head is not None and pair.kv_head is not None:
            heads = served.setdefault((pair.stack, pair.attention, pair.layer), {})
            heads.setdefault(pair.kv_head, set()).add(pair.head)
    return served
