"""Whole scans of networks without alignment claim nothing: the small form of benchmarks.null_scans.

The page docs/nulls.md holds the table of the large one.
"""

import pytest
from benchmarks.null_networks import NETWORKS
from benchmarks.null_scans import one_scan
from scipy import stats

import flagscope

# Quick networks of every kind of null: stored types, thin and square maps, profiles, dead neurons.
SCANS = {
    "Llama (64, 8, 2 kv) bf16": 6,
    "Llama (64, 8, 2 kv) scaled float8": 4,
    "GPT-2 (16, 2, 6 layers)": 10,
    "GPT-2 (96, 3, 4 layers)": 8,
    "MLP of 8 maps": 20,
    "GPT-2 (96, 3), norm gains of sd .2": 8,
    "MLP of 8 maps, a quarter dead": 20,
    "GPT-2 (96, 3), t3 entries": 6,
    "GPT-2 (96, 3), shared profile of sd .3": 6,
    "MLP of 8 maps, ReLU-balanced": 20,
}


@pytest.mark.slow
def test_scans_of_random_weights_claim_nothing():
    networks = {network.name: network for network in NETWORKS}
    found = [
        (name, one_scan(networks[name], 10_000 + seed))
        for name, scans in SCANS.items()
        for seed in range(scans)
    ]
    assert not [name for name, scan in found if scan["failures"]]
    # "Exact" is no matter of error rates: not one.
    assert not [name for name, scan in found if scan["exact"]]
    claims = [(name, scan["claims"]) for name, scan in found if scan["claims"]]
    # One scan in twenty may claim something at --fdr 0.05; more than this has a chance of 1e-4.
    allowed = int(stats.binom.isf(1e-4, len(found), 0.05))
    assert len(claims) <= allowed, claims
    # And of every test: sizes at 0.05 in all networks together, with room for dependent tests.
    for test in ("overlap", "C", "ρ", "R"):
        counts = [
            counts
            for _, scan in found
            for name, counts in scan["sizes"].items()
            if name.split(",")[0] == test
        ]
        tests, small = (sum(column) for column in list(zip(*counts, strict=True))[:2])
        assert tests > 100
        assert small / tests < 0.05 * 1.2 + 4 * (0.05 / tests) ** 0.5, test


@pytest.mark.slow
def test_sharp_scans_of_random_weights_claim_nothing():
    """With the sketch forced in every space beyond 8 dimensions."""
    networks = {network.name: network for network in NETWORKS}
    found = [
        one_scan(networks[name], 20_000 + seed, sharp=True)
        for name, scans in (("GPT-2 (96, 3, 4 layers)", 8), ("MLP of 8 maps, a quarter dead", 20))
        for seed in range(scans)
    ]
    assert not any(scan["failures"] or scan["exact"] for scan in found)
    claims = [scan["claims"] for scan in found if scan["claims"]]
    assert len(claims) <= stats.binom.isf(1e-4, len(found), 0.05), claims
    sampled = sum(
        counts[0] for scan in found for name, counts in scan["sizes"].items() if "sampled" in name
    )
    assert sampled >= 50


def test_a_planted_alignment_is_claimed():
    network = next(network for network in NETWORKS if network.name == "MLP of 8 maps")
    state, _ = network.draw(7)
    state["2.weight"] = state["0.weight"].T.repeat(4, 1).contiguous()
    report = flagscope.scan(state, workers=1)
    assert any(finding.severity in ("strong", "notable") for finding in report.findings)
