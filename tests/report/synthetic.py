"""Scan results with planted contents, built without a network: what the report is tested on.

Head groups of moderate size come from real random subspaces, so that matrices, spectra and shared
counts agree with each other; everything else is drawn to look like a trained model's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flagscope.diagnose.gauge import labels
from flagscope.engine.run.error_rate import with_one_error_rate
from flagscope.records import (
    ArraySummary,
    Balanced,
    Coverage,
    EdgeRecord,
    FailureRecord,
    Freedom,
    Functional,
    HeadCluster,
    HeadPair,
    HeadRecord,
    HeadSpace,
    Incidence,
    LeftOut,
    MapReference,
    NullValues,
    OverlapTest,
    PairKind,
    PairRecord,
    RunRecord,
    ScanResult,
    SharedDirection,
    WithoutNumbers,
)

FREEDOMS: tuple[Freedom, ...] = ("gl", "rotary", "scaling", "permutation", "none")
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">{{7*7}}%{x}<b>&amp;"


def result(
    pairs: Sequence[PairRecord] = (),
    heads: Sequence[HeadRecord] = (),
    *,
    source: str = "models/example",
    family: str = "bert",
    parameters: int = 22_713_216,
    dtype: str = "float32",
    notes: Sequence[str] = (),
    unmapped: Sequence[str] = (),
    failures: Sequence[FailureRecord] = (),
    edges: Sequence[EdgeRecord] = (),
    edge_tests: int = 0,
    coverage: Coverage | None = None,
) -> ScanResult:
    """A scan result around the given records, their p-values adjusted together."""
    family_of_tests = with_one_error_rate(pairs, heads, edges, edge_tests=edge_tests)
    return ScanResult(
        version="0.1.0",
        source=source,
        fingerprint="blake2b:5f1c0a9be7d24c6688aa01f2",
        family=family,
        parameters=parameters,
        dtype=dtype,
        coverage=coverage,
        settings={"rank": "signal", "fdr": 0.05, "fold_norms": "auto", "seed": 0},
        labels={freedom: labels(freedom) for freedom in FREEDOMS},
        notes=list(notes),
        unmapped=list(unmapped),
        pairs=family_of_tests.pairs,
        heads=family_of_tests.heads,
        edges=family_of_tests.edges,
        edge_tests=edge_tests,
        tests=family_of_tests.tests,
        failures=list(failures),
        run=RunRecord(seconds=3.14, peak_rss_bytes=812_000_000, device="cpu", workers=2),
    )


def partly(name: str = "layers.{0-11}.mix.weight", *, links: int = 0) -> Coverage:
    """72 of 86 matrices measured: an embedding left as in every model, twelve left unplaced."""
    left = [
        LeftOut(
            reason="left unplaced", matrices=12, parameters=2_000_000, expected=False, names=[name]
        ),
        LeftOut(
            reason="embedding, by its name", matrices=2, parameters=9_000_000, expected=True,
            names=["wte.weight", "wpe.weight"], unlisted=0,
        ),
    ]  # fmt: skip
    lost = [WithoutNumbers(what="pairs", count=2, of=150, reason="weights that are all zero")]
    if links:
        lost.append(WithoutNumbers(what="links", count=links, of=288, reason="heads are zero"))
    return Coverage(
        matrices=86, measured=72, parameters=22_000_000, parameters_measured=10_900_000,
        left_out=left, buffers=[name], without_numbers=lost,
    )  # fmt: skip


def pair(
    name: str,
    kind: PairKind,
    *,
    d: int,
    rank: int,
    layer: int | None,
    generator: np.random.Generator,
    head: int | None = None,
    kv_head: int | None = None,
    between: str = "linear",
    freedom: Freedom = "gl",
    strength: float = 1.0,
    details: bool = True,
    **changes: Any,
) -> PairRecord:
    """A pair whose overlap and commutator grow with ``strength`` (1 is chance)."""
    effective = max(1, int(rank * generator.uniform(0.6, 0.85)))
    read = max(1, int(rank * generator.uniform(0.6, 0.85)))
    largest, small = max(effective, read), min(effective, read)
    sd = math.sqrt(2 * (d - small) * (d - largest) / max(1, small * largest)) / d
    overlap = min(float(d / largest), strength * generator.normal(1, sd + 0.02))
    z = None if sd == 0 else (overlap - 1) / sd
    log10_p = None if z is None else -(z**2) / (2 * math.log(10)) - math.log10(abs(z) + 1.3)
    cosines = np.sort(np.clip(generator.beta(2, 3, small) * strength, 0, 1))[::-1]
    ratio = float(np.exp(generator.normal(np.log(strength) - 0.3, 0.12)))
    rho = float(np.tanh(generator.normal(0.3 * (strength - 0.9), 0.05)))
    ranks = sorted({max(1, round(r)) for r in np.geomspace(1, rank, 12)})
    surface = [[float(min(i, j) * min(1, max(i, j) / d * overlap)) for j in ranks] for i in ranks]
    values: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "between": between,
        "stack": "encoder",
        "attention": "self" if kind in ("qk", "ov") else None,
        "layer": layer,
        "head": head,
        "kv_head": head if kv_head is None else kv_head,
        "expert": None,
        "write": MapReference(tensor=f"{name}.write.weight", slice="[:]", transposed=False),
        "read": MapReference(tensor=f"{name}.read.weight", slice="[:]", transposed=kind == "qk"),
        "d": d,
        "rank_write": rank,
        "rank_read": rank,
        "effective_rank_write": effective,
        "effective_rank_read": read,
        "participation_write": 0.9 * effective,
        "participation_read": 0.9 * read,
        "dominant": "ok",
        "commutator_ratio": ratio,
        "commutator_p": 10 ** -min(300.0, abs(ratio - 1) * 8),
        "gram_correlation": rho,
        "gram_correlation_z": rho * d / 2,
        "gram_correlation_p": 10 ** -min(300.0, abs(rho) * 30),
        "commutation_defect": float(generator.normal(0.6, 0.08)),
        "imbalance": float(generator.uniform(0.2, 0.45)),
        "overlap_ratio": overlap,
        "overlap_z": z,
        "p": None if log10_p is None else max(1e-300, min(1.0, 10.0**log10_p)),
        "log10_p": None if log10_p is None else min(0.0, log10_p),
        "p_adjusted": None,
        "p_adjusted_dependent": None,
        "overlap_test": None
        if log10_p is None
        else OverlapTest(
            rank_write=effective,
            rank_read=read,
            overlap_ratio=overlap,
            log10_p=min(0.0, log10_p),
            log10_p_profile=min(0.0, log10_p + 0.5) if log10_p < -1.3 else None,
            dominant_log10_p=min(0.0, log10_p),
        ),
        "intersection_exact": 0,
        "intersection_status": "ok",
        "cosines_forced": max(0, effective + read - d),
        "intersection_beyond_chance": max(0, int((overlap - 1) * 6)),
        "flag_defect": float(small - overlap * small * largest / d),
        "kernel_intersection": 0,
        "cosines": [float(c) for c in cosines],
        "profile": [(r, float(overlap * (1 + 0.4 / r))) for r in ranks],
        "incidence": Incidence(ranks_write=ranks, ranks_read=ranks, surface=surface)
        if details
        else None,
        "freedom": freedom,
        "functional": Functional(
            product_spectrum=[float(x) for x in np.geomspace(4, 0.02, min(rank, 64))],
            product_rank=rank,
            product_effective_rank=0.6 * rank,
        ),
        "balanced": balanced(freedom, ratio, rho),
        "null": NullValues(
            overlap_ratio_sd=sd,
            commutator_ratio_interval=(0.86, 1.16),
            gram_correlation_sd=2 / d,
            commutation_defect=1 + 1 / d,
            commutation_defect_sd=2 / d,
            largest_cosine=min(1.0, 1.7 * math.sqrt(largest / d)),
        ),
        "status": "ok",
    }
    return PairRecord(**(values | changes))


def balanced(freedom: Freedom, ratio: float, rho: float) -> Balanced | None:
    """The balanced form: trivial under GL, informative under scalings."""
    if freedom == "gl":
        return Balanced(gauge="W1 W1ᵀ = W2ᵀ W2", imbalance=0.0, effective_rank=19.3)
    if freedom in ("rotary", "scaling"):
        return Balanced(
            gauge="equal traces per neuron" if freedom == "scaling" else "equal traces per plane",
            commutator_ratio=0.8 * ratio,
            gram_correlation=rho + 0.05,
            gram_correlation_z=20 * rho,
            commutation_defect=0.55,
            imbalance=0.15,
            overlap_ratio=1.21,
            overlap_z=5.5,
            effective_rank=17.0,
        )
    return None


def undefined(record: PairRecord, status: str) -> PairRecord:
    """The same pair with no number, and a status that says why."""
    keep = {"effective_rank_write", "effective_rank_read", "rank_write", "rank_read"}
    numbers = [
        name
        for name, field in PairRecord.model_fields.items()
        if name not in keep and field.annotation in (float | None, int | None)
    ]
    numbers = [name for name in numbers if name not in ("layer", "head", "kv_head", "expert")]
    gone: dict[str, Any] = dict.fromkeys([*numbers, *keep, "cosines", "profile", "incidence"])
    gone |= {"functional": None, "balanced": None, "null": None, "status": status}
    gone |= {"overlap_test": None, "dominant": None, "intersection_status": None}
    return record.model_copy(update=gone)


def head_group(
    layer: int,
    space: HeadSpace,
    *,
    count: int,
    rank: int,
    d: int,
    generator: np.random.Generator,
    copies: Sequence[tuple[int, int, int]] = (),
    common: float = 0.6,
    angle: float = 0.02,
    stack: str = "encoder",
    tensor: str | None = None,
) -> HeadRecord:
    """Heads with a common preference of strength ``common`` and planted (i, j, shared) copies.

    ``angle`` is the size of the noise on the shared directions: 1 leaves a mean squared cosine of
    about a half on them.
    """
    scale = 1 + common * np.exp(-np.arange(d) / (0.15 * d)) * 3
    bases = np.linalg.qr(generator.normal(size=(count, d, rank)) * scale[:, None])[0]
    for i, j, shared in copies:
        tail = generator.normal(size=(d, rank - shared))
        noisy = bases[i][:, :shared] + angle * generator.normal(size=(d, shared)) / math.sqrt(d)
        bases[j] = np.linalg.qr(np.concatenate([noisy, tail], axis=1))[0]
    gram = bases.transpose(0, 2, 1)[:, None] @ bases[None]
    squared = (gram**2).sum((2, 3))
    pairwise = squared / (rank * rank / d)
    upper = np.triu_indices(count, 1)
    t = rank / d
    edge = (math.sqrt(1 - t) + math.sqrt(t * (count - 1))) ** 2
    stacked = bases.transpose(1, 0, 2).reshape(d, -1)
    vectors = np.linalg.eigh(stacked @ stacked.T)
    near = [
        HeadPair(
            heads=(i, j),
            overlap_ratio=float(pairwise[i, j]),
            log10_p=-211.4,
            shared=shared,
            rank=rank,
            mean_squared_cosine=float(squared[i, j] / rank),
        )
        for i, j, shared in copies
    ]
    half = rank / d + 0.5 * (1 - rank / d)
    tests = [
        HeadCluster(
            heads=list(one.heads), mean_squared_cosine=one.mean_squared_cosine, log10_p=-200.0
        )
        for one in near
        if one.mean_squared_cosine >= half
    ]
    clusters = [cluster.heads for cluster in tests]
    members = [head for cluster in clusters for head in cluster]
    order = members + [head for head in range(count) if head not in members]
    values = np.clip(vectors[0][::-1], 0, count)
    threshold = edge * 1.02
    shared_directions = [
        SharedDirection(
            eigenvalue=float(vectors[0][index]),
            heads=[
                h
                for h in range(count)
                if float(((bases[h].T @ vectors[1][:, index]) ** 2).sum()) > 0.5
            ],
        )
        for index in range(d - 1, -1, -1)
        if vectors[0][index] > threshold
    ]
    mean = float(pairwise[upper].mean()) if count > 1 else None
    sd = None
    if count > 1 and rank < d:
        sd = math.sqrt(2) * (d - rank) / (rank * math.sqrt((d - 1) * (d + 2)))
        sd /= math.sqrt(len(upper[0]))
    z = None if sd is None or mean is None else (mean - 1) / sd
    return HeadRecord(
        stack=stack,
        attention="self",
        layer=layer,
        space=space,
        tensor=tensor or f"encoder.layer.{layer}.attention.{space}.weight",
        count=count,
        rank=rank,
        d=d,
        overlap_ratio=mean,
        overlap_ratio_sd=sd,
        z=z,
        p=None if z is None else 10 ** -min(300.0, z**2 / 4.6),
        log10_p=None if z is None else -(z**2) / 4.6,
        p_adjusted=None,
        p_adjusted_dependent=None,
        max_pair_ratio=float(pairwise[upper].max()) if count > 1 else None,
        min_pair_ratio=float(pairwise[upper].min()) if count > 1 else None,
        shared_directions=len(shared_directions),
        shared_threshold=threshold,
        # A hundredth above the threshold, and steeply less beyond it.
        shared_log10_p=-2.0 - 60 * (float(values[0]) / threshold - 1)
        if values[0] > threshold
        else -1.0,
        shared=shared_directions,
        spectrum=[float(v) for v in values]
        if d <= 512
        else ArraySummary(
            length=d,
            top=[float(v) for v in values[:64]],
            quantiles=[(q, float(np.quantile(values, q))) for q in (0, 0.25, 0.5, 0.75, 1)],
        ),
        clusters=clusters,
        cluster_tests=tests,
        order=order,
        near_copies=near,
        pairwise=[[float(x) for x in row] for row in pairwise],
        status="ok",
    )


def transformer(
    *,
    layers: int = 12,
    heads: int = 12,
    key_heads: int | None = None,
    rank: int = 32,
    d: int = 384,
    rope: bool = False,
    planted: bool = True,
    source: str = "models/all-example-L12-v2",
) -> ScanResult:
    """A transformer; with ``planted``, copies, undefined pairs, failures and notes."""
    generator = np.random.default_rng(2)
    key_heads = key_heads or heads
    pairs: list[PairRecord] = []
    groups: list[HeadRecord] = []
    for layer in range(layers):
        for head in range(heads):
            group = head * key_heads // heads
            shared: dict[str, Any] = {
                "d": rank, "rank": rank, "layer": layer, "head": head, "kv_head": group,
                "generator": generator, "strength": 1 + 0.4 * math.sin(layer / layers * 3),
            }  # fmt: skip
            base = f"layer.{layer}.head.{head}"
            between, freedom = ("rope", "rotary") if rope else ("linear", "gl")
            pairs.append(pair(f"{base}.qk", "qk", between=between, freedom=freedom, **shared))
            pairs.append(pair(f"{base}.ov", "ov", **shared))
        pairs.append(
            pair(
                f"layer.{layer}.mlp",
                "mlp",
                d=4 * d,
                rank=d,
                layer=layer,
                generator=generator,
                between="gelu",
                freedom="permutation",
                strength=2 + layer / 2,
            )
        )
        for space in ("q", "k", "v", "o"):
            copies: list[tuple[int, int, int]] = []
            if planted and space in ("q", "k") and layer == 4:
                copies = [(2, 7, 21)]
            if planted and space == "v" and layer == 9:
                copies = [(0, 5, 28), (1, 8, 14)]
            groups.append(
                head_group(
                    layer,
                    space,
                    count=key_heads if space in "kv" else heads,
                    rank=rank,
                    d=d,
                    generator=generator,
                    copies=copies,
                    common=0.9 - 0.06 * layer,
                )
            )
    failures, notes, unmapped = [], [], []
    if planted:
        pairs[5] = undefined(pairs[5], "the write map holds 3 NaN values")
        pairs[30] = undefined(pairs[30], "the read map is zero")
        pairs[40] = pairs[40].model_copy(update={"kernel_intersection": 5})
        failures = [
            FailureRecord(
                task="layer.7.mlp",
                error="the matrix could not be read: 3.1 MB expected, 2.0 MB left",
                hint="download the file again",
            )
        ]
        notes = ["The pooler is not part of any pair.", "Position embeddings were skipped."]
        unmapped = ["embeddings.word_embeddings.weight", "pooler.dense.weight"]
    return result(pairs, groups, source=source, notes=notes, unmapped=unmapped, failures=failures)


def edge(
    layer_from: int,
    head_from: int,
    space: str,
    layer_to: int,
    head_to: int,
    *,
    ratio: float = 1.0,
    composition_ratio: float = 1.0,
    rank: int = 32,
    d: int = 384,
    **changes: Any,
) -> EdgeRecord:
    """A link of given overlap and squared composition, in units of chance, with normal tails."""
    sd = math.sqrt(2) * (d - rank) / (rank * math.sqrt((d - 1) * (d + 2)))
    z, circuit_z = (ratio - 1) / sd, (composition_ratio - 1) / (2 * sd)
    logs = [-(x**2) / (2 * math.log(10)) - math.log10(abs(x) + 1.3) for x in (z, circuit_z)]
    p = min(1.0, 10.0 ** logs[0])
    values: dict[str, Any] = {
        "from": f"L{layer_from}H{head_from}.o",
        "to": f"L{layer_to}H{head_to}.{space}",
        "stack": "decoder",
        "layer_from": layer_from,
        "head_from": head_from,
        "layer_to": layer_to,
        "head_to": head_to,
        "space": space,
        "overlap_ratio": ratio,
        "overlap_z": z,
        "p": p,
        "log10_p": min(0.0, logs[0]),
        "p_adjusted": None,
        "composition": math.sqrt(composition_ratio / d),
        "composition_ratio": composition_ratio,
        "composition_z": circuit_z,
        "composition_log10_p": min(0.0, logs[1]),
    }
    return EdgeRecord.model_validate(values | changes)


def stream(
    *,
    layers: int = 6,
    heads: int = 8,
    key_heads: int = 4,
    top: int = 200,
    rank: int = 32,
    d: int = 384,
    window: int = 1,
    spread: float = 0.08,
) -> ScanResult:
    """A decoder: L1H2 writes for the keys that L2H5 reads, one head of layer 3 for all queries."""
    generator = np.random.default_rng(7)
    pairs = []
    for layer in range(layers):
        for writer, first in (("o", layer), ("mlp.down", layer + 1)):
            for target in range(first, min(layers, layer + window + 1)):
                same = target == layer
                for reader in (
                    ("mlp.gate", "mlp.up") if same else ("q", "k", "v", "mlp.gate", "mlp.up")
                ):
                    pairs.append(
                        pair(
                            f"layer.{layer}.{writer}-layer.{target}.{reader}",
                            "residual",
                            d=d,
                            rank=d // 2,
                            layer=target,
                            generator=generator,
                            between="norm",
                            freedom="none",
                            strength=1 + 0.1 * target + 0.4 * (reader in "qkv"),
                        )
                    )
    groups = [
        head_group(
            layer, space, count=key_heads if space in "kv" else heads, rank=rank, d=d,
            generator=generator, stack="decoder",
        )
        for layer in range(min(layers, 2))
        for space in ("q", "k", "v", "o")
    ]  # fmt: skip
    tests = (layers - 1) * heads * (heads + 2 * key_heads)
    planted = {(1, 2, "k", 5 * key_heads // heads): 6.0}
    links = []
    for layer in range(layers - 1):
        for one in range(heads):
            for space in ("q", "k", "v"):
                for two in range(heads if space == "q" else key_heads):
                    ratio = float(np.exp(generator.normal(0.05, spread)))
                    ratio *= 1.6 if layer == 3 and space == "q" and one == 4 % heads else 1.0
                    ratio = planted.get((layer, one, space, two), ratio)
                    both = float(np.exp(generator.normal(math.log(ratio), 0.3)))
                    links.append(
                        edge(
                            layer, one, space, layer + 1, two, ratio=ratio,
                            composition_ratio=both, rank=rank, d=d,
                        )
                    )  # fmt: skip
    links.sort(key=lambda one: -max(one.overlap_z or 0, one.composition_z or 0))
    return result(
        pairs,
        groups,
        source="models/stream",
        family="llama",
        edges=links[:top],
        edge_tests=tests,
        coverage=partly(links=12),
    )


def resnet() -> ScanResult:
    """Nine conv pairs and nine residual ones, no heads."""
    generator = np.random.default_rng(3)
    pairs = []
    for stage in range(3):
        for block in range(3):
            width = 16 * 2**stage
            base = f"layer{stage + 1}.{block}"
            pairs.append(
                pair(
                    f"{base}.conv1-conv2",
                    "conv",
                    d=width,
                    rank=width,
                    layer=3 * stage + block,
                    generator=generator,
                    between="relu",
                    freedom="scaling",
                    folded=[f"{base}.bn1"],
                )
            )
            pairs.append(
                pair(
                    f"{base}.conv2-next",
                    "residual",
                    d=width,
                    rank=width,
                    layer=None,
                    generator=generator,
                    between="residual",
                    freedom="none",
                )
            )
    return result(pairs, source="resnet20.th", family="resnet", parameters=272_474)


def perceptron() -> ScanResult:
    """A network with one hidden layer: one pair."""
    one = pair(
        "0-2", "sequential", d=64, rank=10, layer=None, generator=np.random.default_rng(4),
        between="relu", freedom="scaling",
    )  # fmt: skip
    return result([one], source="mlp.pt", family="sequential", parameters=4_810)


def empty() -> ScanResult:
    """A checkpoint in which nothing could be mapped."""
    return result(
        source="odd.npz",
        family="unknown",
        parameters=12,
        unmapped=["a", "b"],
        notes=["No adjacent maps were found."],
    )


def hostile() -> ScanResult:
    """A result whose names and messages carry markup and template syntax."""
    generator = np.random.default_rng(5)
    one = pair(
        HOSTILE, "ov", d=32, rank=8, layer=0, head=0, generator=generator, between=HOSTILE,
        strength=1.8,
    )  # fmt: skip
    two = undefined(
        pair(f"{HOSTILE}2", "ov", d=32, rank=8, layer=0, head=1, generator=generator), HOSTILE
    )
    group = head_group(
        0, "k", count=4, rank=4, d=32, generator=generator, copies=[(0, 1, 3)], stack=HOSTILE,
        tensor=HOSTILE,
    )  # fmt: skip
    link = edge(0, 0, "k", 1, 1, ratio=4.0, stack=HOSTILE).model_copy(
        update={"source": HOSTILE, "target": HOSTILE}
    )
    return result(
        [one, two],
        [group],
        edges=[link],
        edge_tests=1,
        source=HOSTILE,
        family=HOSTILE,
        dtype=HOSTILE,
        coverage=partly(HOSTILE, links=3),
        notes=[HOSTILE],
        unmapped=[HOSTILE],
        failures=[FailureRecord(task=HOSTILE, error=HOSTILE, hint=HOSTILE)],
    )


def large(*, layers: int = 64, heads: int = 64) -> ScanResult:
    """Many layers and query heads, these in groups of eight: for the page's size and time."""
    generator = np.random.default_rng(6)
    group: dict[tuple[str, int], HeadRecord] = {}
    for space in ("q", "k"):
        count = heads if space == "q" else heads // 8
        group[space, count] = head_group(0, space, count=count, rank=8, d=256, generator=generator)
    pairs, groups = [], []
    template = pair(
        "t", "qk", d=128, rank=128, layer=0, head=0, generator=generator, between="rope",
        freedom="rotary",
    )  # fmt: skip
    for layer in range(layers):
        for kind in ("qk", "ov"):
            for head in range(heads):
                noise = float(np.exp(generator.normal(0, 0.1)))
                changes: dict[str, Any] = {
                    "name": f"layer.{layer}.head.{head}.{kind}", "kind": kind, "layer": layer,
                    "head": head, "kv_head": head // 8,
                    "commutator_ratio": noise * (template.commutator_ratio or 1),
                    "overlap_ratio": noise * (template.overlap_ratio or 1),
                    "cosines": [c * min(1, noise) for c in template.cosines or []],  # type: ignore[union-attr]
                }  # fmt: skip
                pairs.append(template.model_copy(update=changes))
        for space in ("q", "k", "v", "o"):
            count = heads // 8 if space in "kv" else heads
            base = group["k" if space in "kv" else "q", count]
            pairwise = np.array(base.pairwise) * np.exp(generator.normal(0, 0.05, (count, count)))
            pairwise = (pairwise + pairwise.T) / 2
            groups.append(
                base.model_copy(
                    update={"layer": layer, "space": space, "pairwise": pairwise.tolist()}
                )
            )
    return result(
        pairs,
        groups,
        source=f"models/large-{layers}L",
        family="llama",
        parameters=70_553_706_496,
        dtype="bfloat16",
    )
