"""Plain sentences: of every finding there is one, short, without a symbol, and no bolder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch

import flagscope
from flagscope.records import (
    FINDING_CODES,
    FailureRecord,
    Finding,
    HeadRecord,
    NotFinite,
    PairKind,
    PairRecord,
    ScanResult,
    WithoutNumbers,
)
from flagscope.report import findings, plain
from flagscope.report.comparison import COMPARISON_CODES
from flagscope.report.comparison.plain import PLAIN
from flagscope.report.tracks import Track
from report import synthetic

LONGEST = 25  # words
SYMBOLS = re.compile(
    r"[ρνλΣθσ₊⁻²ᵀ‖|∩·≥≤≈]|\bW_|\bC\b|\bR\b|\bk₊|\bGrams?\b|\bgauge\b|\bcosines?\b|\bz\b|\bp\b"
    r"|\beigen|\bspectr|\brank|\bcommut|\borthogonal",
)
DOUBT = re.compile(r"not certain")


def _quiet_tests(pair: PairRecord, **changes: Any) -> PairRecord:
    far = {"log10_p": -40.0, "commutator_p": 1e-40, "gram_correlation_p": 1e-40}
    far |= dict.fromkeys(("cosines", "profile", "incidence", "functional", "balanced"))
    return pair.model_copy(update=far | {"overlap_test": None} | changes)


def _every_kind() -> Iterator[ScanResult]:
    """Pairs of every kind, far from chance to either side, alone and with others, in two stacks."""
    sides = (
        {"commutator_ratio": 0.2, "gram_correlation": 0.0, "overlap_ratio": 1.0},
        {"commutator_ratio": 5.0, "gram_correlation": 0.0, "overlap_ratio": 1.0},
        {"commutator_ratio": 1.0, "gram_correlation": 0.8, "overlap_ratio": 1.0},
        {"commutator_ratio": 1.0, "gram_correlation": -0.8, "overlap_ratio": 1.0},
        {"commutator_ratio": 1.0, "gram_correlation": 0.0, "overlap_ratio": 4.0},
        {"commutator_ratio": 1.0, "gram_correlation": 0.0, "overlap_ratio": 0.1},
    )
    generator = np.random.default_rng(0)
    one = synthetic.pair(
        "layer.0.mlp", "mlp", d=512, rank=64, layer=0, generator=generator, between="gelu",
        freedom="permutation",
    )  # fmt: skip
    exact = {"kernel_intersection": 3, "intersection_exact": 2, "intersection_status": "ok"}
    for kind in get_args(PairKind):
        for numbers in sides:
            for count, stacks in ((1, 1), (24, 2)):
                ranks = {"effective_rank_write": 40, "effective_rank_read": 40, "kind": kind}
                pairs = [
                    _quiet_tests(one, **numbers, **ranks, **exact).model_copy(
                        update={"name": f"p{i}", "layer": i, "head": i,
                                "stack": ("encoder", "decoder")[i % stacks],
                                "attention": ("self", "cross")[i % stacks]
                                if kind not in ("mlp", "sequential", "conv") else None}
                    )
                    for i in range(count)
                ]  # fmt: skip
                yield synthetic.result(pairs)
                unsure = [p.model_copy(update={"commutator_p": 1e-3, "gram_correlation_p": 1e-3,
                                               "log10_p": -3.0}) for p in pairs]  # fmt: skip
                yield synthetic.result(unsure)


def _broken(stream: ScanResult) -> Iterator[ScanResult]:
    """Scans in which something is missing."""
    assert stream.coverage is not None
    lost = NotFinite(tensors=2, names=["a", "b"], unlisted=0, pairs=3, balanced=1, head_groups=1,
                     links=4)  # fmt: skip
    yield stream.model_copy(
        update={"coverage": stream.coverage.model_copy(update={"not_finite": lost})}
    )
    links = WithoutNumbers(what="links", count=3, of=24, reason="heads are zero")
    coverage = stream.coverage.model_copy(update={"without_numbers": [links]})
    failed = [FailureRecord(task="layer.0", error="no memory", hint=None)]
    yield stream.model_copy(update={"coverage": coverage, "failures": failed})
    yield stream.model_copy(update={"schema_": "flagscope.scan/1"})
    yield synthetic.empty().model_copy(update={"coverage": synthetic.partly()})
    yield synthetic.empty().model_copy(update={"coverage": None})
    yield synthetic.perceptron()
    yield synthetic.resnet()
    yield synthetic.transformer(layers=2, heads=8, key_heads=2, rank=8, d=64, rope=True,
                                planted=False)  # fmt: skip


def _links() -> Iterator[ScanResult]:
    for ratio in (0.5, 0.95, 1.05, 3.0):
        for tests in (1, 1000):
            edge = synthetic.edge(0, 0, "q", 1, 0, ratio=ratio, rank=128, d=4096, log10_p=-20.0)
            yield synthetic.result(edges=[edge], edge_tests=tests)
            score = {"overlap_ratio": 1.0, "log10_p": -0.1, "composition_ratio": ratio,
                     "composition_log10_p": -20.0}  # fmt: skip
            yield synthetic.result(edges=[edge.model_copy(update=score)], edge_tests=tests)


def _heads(first: HeadRecord) -> Iterator[ScanResult]:
    for ratio in (0.4, 2.5):
        for layers in (1, 3):
            groups = [
                first.model_copy(update={"layer": layer, "space": space, "overlap_ratio": ratio})
                for layer in range(layers) for space in "qkvo"
            ]  # fmt: skip
            yield synthetic.result(heads=groups)
            yield synthetic.result(heads=groups[:-1])
            unsure = [g.model_copy(update={"log10_p": -2.5, "near_copies": [], "shared": [],
                                           "cluster_tests": []}) for g in groups]  # fmt: skip
            yield synthetic.result(heads=unsure)


@pytest.fixture(scope="module")
def said(transformer: ScanResult, stream: ScanResult) -> tuple[Finding, ...]:
    """Findings of all makers, each sentence once."""
    scans = (transformer, stream, *_every_kind(), *_broken(stream), *_links(),
             *_heads(transformer.heads[0]))  # fmt: skip
    return tuple({f.plain + f.text: f for scan in scans for f in findings(scan)}.values())


def test_every_code_is_among_them(said: tuple[Finding, ...]) -> None:
    health = {code for code in FINDING_CODES if code not in _KNOWN}
    assert {finding.code for finding in said} >= set(FINDING_CODES) - health


# Codes made here; those on the health of weights have tests of their own.
_KNOWN = {
    "not-finite", "near-copies", "related-heads", "crowded-heads", "separate-heads",
    "shared-directions", "links-overlap-more", "links-overlap-less", "links-compose-more",
    "links-compose-less", "aligned", "overlap-more", "overlap-less", "lost-ranks",
    "exact-intersections", "small-effects", "missing-numbers", "failed-tasks", "not-placed",
    "links-without-number", "old-schema", "nothing",
}  # fmt: skip


def test_each_is_short_and_free_of_symbols(said: tuple[Finding, ...]) -> None:
    for finding in said:
        assert finding.plain.endswith("."), finding
        assert finding.plain[0].isupper() or finding.plain[0].isdigit() or ": " in finding.plain
        assert len(finding.plain.split()) <= LONGEST, finding.plain
        assert not SYMBOLS.search(finding.plain), finding.plain


def test_each_doubts_what_its_technical_sentence_doubts(said: tuple[Finding, ...]) -> None:
    for finding in said:
        unsure = "not certain at the error rate" in finding.text
        assert bool(DOUBT.search(finding.plain)) == unsure, finding.plain
        if "significant, but small" in finding.text:
            assert "only slightly" in finding.plain


def test_counts_are_those_of_the_technical_sentence(said: tuple[Finding, ...]) -> None:
    for finding in said:
        if finding.topic != "pairs":
            continue
        for some, every in re.findall(r"In (\d+) of (\d+) ", finding.plain):
            assert f"{some} of {every} pairs" in finding.text, finding.plain
        for every in re.findall(r"In all (\d+) ", finding.plain):
            assert f"all {every} pairs" in finding.text, finding.plain


def test_pairs_around_an_activation_say_that_it_is_not_looked_at(
    said: tuple[Finding, ...],
) -> None:
    pair = synthetic.perceptron().pairs[0]
    far = {"commutator_ratio": 5.0, "gram_correlation": 0.8, "overlap_ratio": 4.0}
    ranks = {"effective_rank_write": 40, "effective_rank_read": 40}
    exact = {"kernel_intersection": 3, "intersection_exact": 2, "intersection_status": "ok"}
    codes = set()
    for kind, between, words in (
        ("mlp", "gelu", "The activation between the two (gelu) is not looked at."),
        ("sequential", "relu", "The activation between the two (relu) is not looked at."),
        (
            "sequential",
            "unknown",
            "What lies between the two is not known, and not looked at: a "
            "scan of the module itself with example_inputs knows it.",
        ),
        ("sequential", "linear", ""),
        ("qk", "rope", ""),
    ):
        changes: dict[str, Any] = {**far, **ranks, **exact, "kind": kind, "between": between}
        for finding in findings(synthetic.result([_quiet_tests(pair, **changes)])):
            if finding.code not in ("aligned", "overlap-more", "lost-ranks", "exact-intersections"):
                continue
            codes.add(finding.code)
            aside = finding.plain.endswith(" (activation left out).")
            assert aside == (between in ("gelu", "relu")), finding.plain
            assert finding.means.endswith(words)
            assert ("not looked at" in finding.means) == bool(words)
    assert codes == {"aligned", "overlap-more", "lost-ranks", "exact-intersections"}
    assert any("(activation left out) (not certain)" in finding.plain for finding in said)


def _track(kind: PairKind, *, heads: list[int], layers: list[int]) -> Track:
    one = synthetic.perceptron().pairs[0]
    pairs = tuple(
        one.model_copy(update={"name": f"p{i}", "kind": kind, "layer": layer, "head": head})
        for i, (layer, head) in enumerate(zip(layers, heads, strict=True))
    )
    return Track("key", "Title", pairs, tuple(layers), True)


@pytest.mark.parametrize(
    ("kind", "heads", "unit"),
    [("ov", [0, 1], "heads"), ("ov", [0, 0], "pairs of maps"), ("mlp", [0, 1], "MLPs"),
     ("sequential", [0, 1], "pairs of layers"), ("residual", [0, 0], "connections")],
)  # fmt: skip
def test_pairs_are_heads_only_where_each_is_one(
    kind: PairKind, heads: list[int], unit: str
) -> None:
    track = _track(kind, heads=heads, layers=[0, 0])
    sentence = plain.overlapping(track, track.pairs[:1], above=True)
    assert sentence.startswith(f"In 1 of 2 {unit} (p0), ")
    sentence = plain.overlapping(track, track.pairs, above=True)
    assert sentence.startswith(f"In all 2 {unit}, ")


def test_the_one_pair_of_a_track_is_named() -> None:
    track = _track("sequential", heads=[0], layers=[0])
    sentence = plain.overlapping(track, track.pairs, above=True)
    assert sentence == (
        "In the one pair (p0), some leading directions one layer writes and the next reads "
        "coincide beyond chance (activation left out)."
    )


def test_heads_pair_by_pair_on_average_and_by_direction_are_told_apart(
    transformer: ScanResult,
) -> None:
    said = {f.code: f.plain for f in findings(transformer) if f.topic == "heads"}
    assert "heads overlap more than random ones on average, in query" in said["crowded-heads"]
    assert "single query, key" in said["shared-directions"]
    assert "are read or written by more" in said["shared-directions"]
    first = transformer.heads[0].model_copy(update={"overlap_ratio": 2.5, "count": 2})
    pair = first.model_copy(update={"near_copies": [], "cluster_tests": [], "shared": []})
    (two,) = [f for f in findings(synthetic.result(heads=[pair])) if f.code == "crowded-heads"]
    assert (
        two.plain == "In layer 0, the two heads overlap more than random ones, in query directions."
    )


def test_a_pair_is_not_called_functional_where_what_acts_between_is_unknown() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(48, 32), torch.randn(16, 48)
    second = second + 3 * torch.randn(16, 8) @ torch.linalg.svd(first).U[:, :8].T
    module = torch.nn.Sequential(
        torch.nn.Linear(32, 48, bias=False), torch.nn.ReLU(), torch.nn.Linear(48, 16, bias=False)
    )
    module[0].weight.data, module[2].weight.data = first, second
    live, bare = (flagscope.scan(one) for one in (module, module.state_dict()))
    claims = [[f for f in r.findings if f.severity in ("strong", "notable")] for r in (live, bare)]
    assert claims[0]
    assert claims[1]
    assert {finding.label for finding in claims[0]} == {"gauge"}
    assert {finding.label for finding in claims[1]} == {None}


def test_findings_of_a_comparison_have_plain_sentences() -> None:
    assert set(PLAIN) == set(COMPARISON_CODES)
    for sentence in PLAIN.values():
        assert not SYMBOLS.search(sentence), sentence
        assert len(sentence.split()) <= LONGEST, sentence
        assert sentence.endswith(".")
