"""`python -m benchmarks.null_sizes`: sizes of the tests of a report under their null models."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from scipy import stats

from benchmarks.null_draws import cosine_draws, gram_draws, head_draws, spectra
from flagscope.null import (
    commutator_null,
    correlation_null,
    free_dimensions,
    largest_cosine_significance,
    mean_overlap_significance,
    overlap_significance,
    projector_sum_edges,
    projector_sum_significance,
    spectrum_invariants,
)

LEVELS = (0.05, 0.01, 0.001)
_DIMENSIONS = (8, 16, 32, 48, 64, 128, 256, 512)
# How often a rotation is used, by dimension; and the share of the draws that C has, which costs d³.
_PERMUTATIONS = {8: 1, 16: 1, 32: 1, 48: 1, 64: 5, 128: 20, 256: 50, 512: 200}
_COMMUTATOR_SHARE = {128: 0.5, 256: 0.2, 512: 0.1}
# Null models of C that are themselves drawn have an error of their own, so several are averaged.
_SEEDS = 4
_COMMUTATOR_DRAWS = 9999
_OVERLAPS = (
    (1, 1, 8), (1, 5, 12), (2, 2, 4), (2, 5, 12), (2, 20, 64), (7, 3, 8), (3, 3, 6), (3, 3, 7),
    (4, 4, 8), (3, 4, 7), (3, 3, 12), (4, 6, 16), (8, 8, 16), (8, 8, 64), (3, 20, 64),
    (32, 32, 256), (32, 32, 64),
)  # fmt: skip
_COSINES = (
    (1, 1, 8), (1, 6, 16), (3, 4, 8), (4, 4, 8), (3, 3, 6), (2, 3, 12), (4, 4, 16), (8, 8, 32),
    (5, 20, 48), (8, 8, 64), (16, 16, 64), (12, 14, 16), (32, 32, 256),
)  # fmt: skip
_HEADS = (
    ((1,) * 3, 3), ((1,) * 3, 4), ((1,) * 3, 8), ((2,) * 3, 3), ((2,) * 3, 5), ((2,) * 4, 8),
    ((1, 1, 2), 4), ((1, 1, 6), 12), ((1,) * 6, 20), ((4,) * 4, 16), ((9,) * 3, 12),
    ((8,) * 3, 16), ((1, 2, 4, 8), 24), ((2,) * 12, 24), ((4,) * 12, 48), ((8,) * 8, 64),
)  # fmt: skip
_BEGIN, _END = "<!-- sizes: written by benchmarks.null_sizes -->", "<!-- end of sizes -->"


@dataclass
class Row:
    """One law in one setting: how many draws, and the share of p below each level, by tail."""

    law: str
    setting: str
    d: int
    draws: int
    shares: list[tuple[float, float]] = field(default_factory=list)
    uniform: float | None = None

    def size(self, level: int) -> float:
        """Over the nominal one."""
        return sum(self.shares[level]) / LEVELS[level]

    def ends(self, level: int) -> tuple[float, float]:
        """95 % binomial ends (Clopper and Pearson) of the size over the nominal one."""
        count = round(sum(self.shares[level]) * self.draws)
        interval = stats.binomtest(count, self.draws).proportion_ci(0.95)
        return interval.low / LEVELS[level], interval.high / LEVELS[level]


def tail_shares(
    p_value: Callable[[float], float | None], sample: np.ndarray, level: float, center: float
) -> tuple[float, float]:
    """Shares with p < level below and above a center, from which p falls monotonically."""
    shares = []
    for side in (np.sort(sample[sample < center]), -np.sort(-sample[sample >= center])):
        low, high = 0, len(side)
        while low < high:
            middle = (low + high) // 2
            p = p_value(float(side[middle]))
            low, high = (middle + 1, high) if p is not None and p < level else (low, middle)
        shares.append(low / len(sample))
    return shares[0], shares[1]


def row(
    law: str, setting: str, d: int, sample: np.ndarray, center: float,
    p_values: Sequence[Callable[[float], float | None]], *, exact: bool = False,
) -> Row:  # fmt: skip
    """Sizes of one law; of several null models the mean."""
    result = Row(law, setting, d, len(sample))
    for level in LEVELS:
        shares = [tail_shares(p, sample, level, center) for p in p_values]
        result.shares.append((
            float(np.mean([below for below, _ in shares])),
            float(np.mean([above for _, above in shares])),
        ))  # fmt: skip
    if exact:
        # 2,000 draws: p-values of an exact law are uniform.
        values = [p_values[0](float(value)) for value in sample[:2000]]
        result.uniform = float(stats.kstest(values, "uniform").pvalue)
    return result


def gram_rows(draws: int, seed: int, dimensions: Sequence[int]) -> Iterator[Row]:
    """ρ (and so the composition score of links) and C, every pair of kinds of spectra."""
    for d in dimensions:
        kinds = spectra(d)
        invariants = {name: spectrum_invariants(values) for name, values in kinds.items()}
        names = list(kinds)
        permutations = _PERMUTATIONS[d]
        share = _COMMUTATOR_SHARE.get(d, 1.0)
        both = max(1, int(draws * share / permutations))
        rho, ratio = gram_draws(kinds, both, permutations, seed=seed, commutator=True)
        more = max(0, draws // permutations - both)
        if more:
            rest, _ = gram_draws(kinds, more, permutations, seed=seed + 1, commutator=False)
            rho = np.concatenate([rho, rest])
        for i, j in itertools.combinations_with_replacement(range(len(names)), 2):
            pair = invariants[names[i]], invariants[names[j]]
            setting = names[i] if i == j else f"{names[i]} × {names[j]}"
            null = correlation_null(*pair)
            if null is not None:
                yield row("ρ", setting, d, np.clip(rho[:, i, j], -1.0, 1.0), 0.0,
                          [lambda x, null=null: null.significance(x).p])  # fmt: skip
            models = [commutator_null(*pair, draws=_COMMUTATOR_DRAWS, seed=seed)]
            if models[0] is not None and models[0].draws:
                models += [
                    commutator_null(*pair, draws=_COMMUTATOR_DRAWS, seed=seed + k)
                    for k in range(1, _SEEDS)
                ]
            tests = [lambda x, m=m: m.significance(x).p for m in models if m is not None]
            if tests and ratio is not None:
                yield row("C", setting, d, np.maximum(ratio[:, i, j], 0.0), 1.0, tests)


def subspace_rows(draws: int, seed: int) -> Iterator[Row]:
    """Σcos², the largest cosine, R and the largest eigenvalue of the sum of projectors."""
    for p, q, d in _OVERLAPS:
        total = (cosine_draws(draws, p, q, d, seed=seed) ** 2).sum(1)
        yield row(
            "Σcos²", f"({p}, {q}, {d})", d, total, p * q / d,
            [lambda x, p=p, q=q, d=d: overlap_significance(x, p, q, d).p],
            exact=min(p, q, d - p, d - q) <= 2,
        )  # fmt: skip
    for p, q, d in _COSINES:
        free = free_dimensions(p, q, d)
        cosines = cosine_draws(draws, p, q, d, seed=seed + 1)[:, free.forced]
        yield row(
            "largest cosine", f"({p}, {q}, {d})", d, np.clip(cosines, 0.0, 1.0), 0.0,
            [lambda x, p=p, q=q, d=d: largest_cosine_significance(x, p, q, d).p],
            exact=free.p == 1 or free.d - free.p - free.q == 1,
        )  # fmt: skip
    for ranks, d in _HEADS:
        ratios, eigenvalues = head_draws(draws, ranks, d, seed=seed)
        shown = f"{len(ranks)} × {ranks[0]}" if len(set(ranks)) == 1 else str(ranks)
        setting = f"{shown}, d = {d}"

        def mean(x: float, ranks: Sequence[int] = ranks, d: int = d) -> float | None:
            return mean_overlap_significance(x, ranks, d).p

        yield row("R", setting, d, np.maximum(ratios, 0.0), 1.0, [mean])
        rank, count = max(ranks), len(ranks)
        top = np.clip(eigenvalues[:, projector_sum_edges(d, rank, count).full], 0.0, count)

        def shared(x: float, d: int = d, rank: int = rank, count: int = count) -> float | None:
            return projector_sum_significance(x, d, rank, count).p

        if shared(float(top[0])) is not None:
            yield row("Σ_h P_h", setting, d, top, 0.0, [shared])


def page(rows: Sequence[Row], draws: int, seed: int) -> str:
    """The tables, sizes over nominal ones."""
    laws = list(dict.fromkeys(result.law for result in rows))
    lines = [
        "Sizes over nominal ones, at .05, .01 and .001, two-sided where the test is; "
        f"{draws:,} draws (seed {seed}) unless stated. With so many, 95 % of right tests lie "
        "within "
        + ", ".join(f"±{1.96 * ((1 - a) / (a * draws)) ** 0.5:.2f}" for a in LEVELS)
        + ".",
        "",
        "| law | settings | largest at .05 | at .01 | at .001 | smallest at .05 |",
        "|---|---|---|---|---|---|",
    ]
    for law in laws:
        own = [result for result in rows if result.law == law]
        cells = [_worst(own, level) for level in range(len(LEVELS))]
        least = min(own, key=lambda result: result.size(0))
        lines.append(f"| {law} | {len(own)} | " + " | ".join(cells) + f" | {least.size(0):.2f} |")
    note = (
        "In brackets: 95 % binomial ends of that one, and where it is. The largest of many lies "
        "above its own mean by chance."
    )
    lines += ["", note, ""]
    for law in ("ρ", "C"):
        lines += _by_dimension(law, [result for result in rows if result.law == law])
    rest = [result for result in rows if result.law not in ("ρ", "C")]
    lines += [
        "| law | setting | .05 | .01 | .001 | KS p of 2,000 draws |",
        "|---|---|---|---|---|---|",
    ]
    for result in rest:
        uniform = "" if result.uniform is None else f"{result.uniform:.3f}"
        sizes = " | ".join(f"{result.size(level):.2f}" for level in range(len(LEVELS)))
        lines.append(f"| {result.law} | {result.setting} | {sizes} | {uniform} |")
    lines += ["", "A KS p stands where the law is exact: p-values are then uniform.", ""]
    return "\n".join(lines)


def _worst(rows: Sequence[Row], level: int) -> str:
    worst = max(rows, key=lambda result: result.size(level))
    low, high = worst.ends(level)
    place = worst.setting if f"{worst.d}" in worst.setting else f"{worst.setting}, d = {worst.d}"
    return f"{worst.size(level):.2f} [{low:.2f}, {high:.2f}; {place}]"


def _by_dimension(law: str, rows: Sequence[Row]) -> list[str]:
    dimensions = sorted({result.d for result in rows})
    counts = [next(result.draws for result in rows if result.d == d) for d in dimensions]
    lines = [
        f"| {law} | " + " | ".join(f"d = {d}" for d in dimensions) + " |",
        "|---|" + "---|" * len(dimensions),
        "| draws | " + " | ".join(f"{count:,}" for count in counts) + " |",
    ]
    for kind in dict.fromkeys(result.setting for result in rows if " × " not in result.setting):
        cells = [
            next((r for r in rows if r.d == d and r.setting == kind), None) for d in dimensions
        ]
        lines.append(f"| {kind} | " + " | ".join(_cell([r] if r else []) for r in cells) + " |")
    mixed = [[r for r in rows if r.d == d and " × " in r.setting] for d in dimensions]
    lines.append("| largest of mixed pairs | " + " | ".join(map(_cell, mixed)) + " |")
    return [*lines, ""]


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return " ".join(f"{max(r.size(level) for r in rows):.2f}" for level in range(len(LEVELS)))


def renew(document: Path, text: str) -> None:
    """Replace what stands between the two marks of a document."""
    content = document.read_text(encoding="utf-8")
    before, mark, rest = content.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not mark or not end:
        raise click.UsageError(f"{document} lacks the marks {_BEGIN} and {_END}")
    document.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}", encoding="utf-8")


@click.command()
@click.option("--draws", default=20_000, show_default=True, type=click.IntRange(min=2000))
@click.option("--seed", default=1, show_default=True)
@click.option("--largest", default=512, show_default=True, help="Largest dimension for ρ and C.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Markdown file.")
@click.option("--page", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Document whose marked section takes the tables.")  # fmt: skip
def main(draws: int, seed: int, largest: int, out: Path | None, document: Path | None) -> None:
    """Sizes of every test of a report under its null model."""
    start = time.perf_counter()
    rows: list[Row] = []
    for part in (
        gram_rows(draws, seed, [d for d in _DIMENSIONS if d <= largest]),
        subspace_rows(draws, seed),
    ):
        for result in part:
            rows.append(result)
            if len(rows) % 50 == 0:
                click.echo(f"{time.perf_counter() - start:.0f} s: {len(rows)} settings", err=True)
    text = page(rows, draws, seed)
    if document is not None:
        renew(document, text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if out is None and document is None:
        click.echo(text)


if __name__ == "__main__":
    main()
