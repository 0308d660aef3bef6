"""Power of the tests of a report on planted alignments, beside the tests that it had before.

`python -m benchmarks.null_power --page docs/nulls.md` writes the table of the page. "Before" is the
overlap at the participation ranks (at the numerical ranks for thin maps), alone and at the same
level, without a guard against scale profiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import log10
from pathlib import Path

import torch
from torch import Tensor

import flagscope
from benchmarks.tables import replaced_between
from flagscope.diagnose import grams
from flagscope.null import overlap_significance

LEVEL = 0.01
Pair = tuple[Tensor, Tensor]


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _frame(generator: torch.Generator, d: int, r: int) -> Tensor:
    return torch.linalg.qr(_normal(generator, d, r)).Q


@dataclass(frozen=True)
class Directions:
    """k directions at one cosine between the ranges of two thin maps of nearly flat spectra."""

    p: int
    q: int
    d: int
    k: int
    cosine: float

    thin = True

    def __str__(self) -> str:
        return f"({self.p}, {self.q}, {self.d}), k = {self.k}, cosine {self.cosine}"

    def draw(self, g: torch.Generator) -> Pair:
        """W1 (d, p + 4) and W2 (q + 3, d)."""
        basis = _frame(g, self.d, self.d)
        v, extra = basis[:, : self.p], basis[:, self.p : self.p + self.k]
        turned = self.cosine * v[:, : self.k] + (1 - self.cosine**2) ** 0.5 * extra
        taken = torch.cat([v[:, : self.k], extra], 1)
        rest = _normal(g, self.d, self.q - self.k)
        rest = torch.linalg.qr(rest - taken @ (taken.mT @ rest)).Q
        u = torch.cat([turned, rest], 1)
        # Singular directions in general position within both ranges.
        v, u = v @ _frame(g, self.p, self.p), u @ _frame(g, self.q, self.q)
        s, t = (1 + 0.1 * torch.rand(n, generator=g, dtype=torch.float64) for n in (self.p, self.q))
        write = (v * s) @ _frame(g, self.p + 4, self.p).mT
        return write, _frame(g, self.q + 3, self.q) @ (u * t).mT


@dataclass(frozen=True)
class Outliers:
    """Common outliers of two square maps of full rank."""

    d: int
    count: int
    strength: float  # in units of √d, the edge of the bulk being at 2

    thin = False

    def __str__(self) -> str:
        return f"square, R^{self.d}, {self.count} common outliers of {self.strength}√d"

    def draw(self, g: torch.Generator) -> Pair:
        """Noise, and the same left singular directions in W1 as right ones in W2."""
        u, a, b = (_frame(g, self.d, self.count) for _ in range(3))
        strength = self.strength * self.d**0.5
        write = _normal(g, self.d, self.d) + strength * u @ a.mT
        return write, _normal(g, self.d, self.d) + strength * b @ u.mT


@dataclass(frozen=True)
class Diffuse:
    """A read map that holds a part of the transposed write map, in every direction alike."""

    d: int
    m: int
    share: float
    steep: bool = False

    thin = False

    def __str__(self) -> str:
        kind = "σ = 1/i" if self.steep else "Gaussian"
        return f"diffuse, {kind}, ({self.d}, {self.m}), part {self.share}"

    def draw(self, g: torch.Generator) -> Pair:
        """W2 = c W1ᵀ + √(1 - c²) N."""
        write, noise = (self._map(g) for _ in range(2))
        return write, (self.share * write + (1 - self.share**2) ** 0.5 * noise).mT.contiguous()

    def _map(self, g: torch.Generator) -> Tensor:
        if not self.steep:
            return _normal(g, self.d, self.m)
        k = min(self.d, self.m)
        values = 1 / torch.arange(1, k + 1, dtype=torch.float64)
        return (_frame(g, self.d, k) * values) @ _frame(g, self.m, k).mT


@dataclass(frozen=True)
class Masked:
    """Two maps that are three times as large on one half of the space as on the other."""

    d: int
    m: int

    thin = False

    def __str__(self) -> str:
        return f"masked, ({self.d}, {self.m})"

    def draw(self, g: torch.Generator) -> Pair:
        """The halves are spanned by random directions, so that no coordinate stands out."""
        q = _frame(g, self.d, self.d)
        half = self.d // 2
        weight = torch.ones(self.d, dtype=torch.float64)
        weight[half:] = 1 / 3
        write = (q * weight) @ _normal(g, self.d, self.m)
        return write, _normal(g, self.m, self.d) @ (q * weight).mT


PLANTED = (
    *(
        Directions(p, q, d, k, cosine)
        for p, q, d in ((8, 8, 64), (32, 32, 256))
        for k in (1, 3)
        for cosine in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    ),
    *(Outliers(256, 3, strength) for strength in (1.2, 1.5, 2.0)),
    Outliers(256, 1, 1.5),
    *(Diffuse(128, 128, share) for share in (0.1, 0.2, 0.3)),
    *(Diffuse(128, 512, share) for share in (0.1, 0.2)),
    *(Diffuse(128, 128, share, steep=True) for share in (0.1, 0.3, 0.6)),
    Masked(128, 128),
    Masked(64, 256),
)


def power_of(planted: Directions | Outliers | Diffuse | Masked, draws: int) -> tuple[float, float]:
    """Shares of p ≤ .01, before and now."""
    torch.set_num_threads(1)
    # Of these scans only the overlap's p-value is read: the null of C needs no 9,999 draws.
    grams._DRAWS = 999  # pyright: ignore[reportPrivateUsage]
    before = now = 0
    for seed in range(draws):
        write, read = planted.draw(torch.Generator().manual_seed(seed))
        result = flagscope.scan({"0.weight": write, "1.weight": read}, only="pairs").result
        (pair,) = result.pairs
        now += _small(pair.log10_p)
        old = flagscope.scan(
            {"0.weight": write, "1.weight": read},
            only="pairs", rank="numerical" if planted.thin else "participation",
        ).result.pairs[0]  # fmt: skip
        r1, r2 = old.effective_rank_write, old.effective_rank_read
        total = old.overlap_ratio * r1 * r2 / old.d
        before += _small(overlap_significance(total, r1, r2, old.d).log10_p)
    return before / draws, now / draws


def _small(log10_p: float | None, *, tests: float = 1) -> bool:
    return log10_p is not None and log10_p + log10(tests) <= log10(LEVEL)


@dataclass(frozen=True)
class Copies:
    """Two heads of which the second is the first with noise, among others in random position."""

    d: int
    heads: int
    rank: int
    noise: float

    def __str__(self) -> str:
        return f"{self.heads} heads of {self.rank} in R^{self.d}, copy with noise {self.noise}"

    def state(self, seed: int) -> tuple[dict[str, Tensor], dict[str, object]]:
        """A GPT-2 of one layer whose query heads 0 and 1 are near-copies."""
        g = torch.Generator().manual_seed(seed)
        d, h, r = self.d, self.heads, self.rank
        query = _normal(g, h, r, d)
        query[1] = _normal(g, r, r) @ (query[0] + self.noise * _normal(g, r, d))
        rows = torch.cat([query.reshape(h * r, d), _normal(g, 2 * h * r, d)])
        at = "transformer.h.0."
        state = {
            at + "attn.c_attn.weight": rows.mT.contiguous(),
            at + "attn.c_attn.bias": torch.zeros(3 * h * r),
            at + "attn.c_proj.weight": _normal(g, h * r, d),
            at + "attn.c_proj.bias": torch.zeros(d),
            at + "mlp.c_fc.weight": _normal(g, d, 4 * d),
            at + "mlp.c_fc.bias": torch.zeros(4 * d),
            at + "mlp.c_proj.weight": _normal(g, 4 * d, d),
            at + "mlp.c_proj.bias": torch.zeros(d),
            "transformer.wte.weight": torch.zeros(16, d),
            "transformer.wpe.weight": torch.zeros(16, d),
        }
        for norm in (at + "ln_1", at + "ln_2", "transformer.ln_f"):
            state |= {f"{norm}.weight": torch.ones(d), f"{norm}.bias": torch.zeros(d)}
        config = {"model_type": "gpt2", "n_embd": d, "n_head": h, "n_layer": 1, "vocab_size": 16}
        return state, config | {"activation_function": "gelu_new"}


COPIES = tuple(
    Copies(d, heads, d // heads, noise)
    for d, heads in ((64, 8), (96, 12))
    for noise in (0.2, 0.5, 1.0, 1.5, 2.0, 3.0)
)


def power_of_copies(copies: Copies, draws: int) -> tuple[float, float]:
    """Shares of scans whose pair of heads 0 and 1 is found at .01 over the pairs of its layer."""
    torch.set_num_threads(1)
    pairs = copies.heads * (copies.heads - 1) / 2
    before = now = 0
    for seed in range(draws):
        state, config = copies.state(seed)
        heads = flagscope.scan(state, config=config, only="heads").result.heads
        queries = next(group for group in heads if group.space == "q")
        ratio = queries.pairwise[0][1]
        r, d = copies.rank, copies.d
        total = min(ratio * r * r / d, r)
        before += ratio > 1 and _small(overlap_significance(total, r, r, d).log10_p, tests=pairs)
        found = [one.log10_p for one in queries.near_copies if set(one.heads) == {0, 1}]
        now += bool(found) and _small(found[0], tests=pairs)
    return before / draws, now / draws


def rows(draws: int, workers: int) -> Iterator[str]:
    """The lines of the table."""
    yield "| planted | before | now |"
    yield "|---|---|---|"
    with ProcessPoolExecutor(workers) as pool:
        jobs: list[tuple[Callable[..., tuple[float, float]], object, int]] = [
            *((power_of, planted, draws) for planted in PLANTED),
            *((power_of_copies, copies, max(20, draws // 4)) for copies in COPIES),
        ]
        running = [(what, pool.submit(work, what, count)) for work, what, count in jobs]
        for what, future in running:
            before, now = future.result()
            yield f"| {what} | {before:.2f} | {now:.2f} |"


def main() -> None:
    """Print the table, or write it to the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--page", type=Path, help="a page with marks for the table")
    options = parser.parse_args()
    lines = []
    for row in rows(options.draws, options.workers):
        print(row, flush=True)
        lines.append(row)
    if options.page:
        said = f"{options.draws} draws each ({max(20, options.draws // 4)} of heads), level .01."
        replaced_between(options.page, "power", "benchmarks.null_power", [said, "", *lines])


if __name__ == "__main__":
    main()
