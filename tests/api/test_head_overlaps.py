"""`flagscope.head_overlaps`: all heads of a model against each other."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.linalg import subspace_angles
from torch import Tensor

import flagscope
from flagscope.errors import InputError
from flagscope.null import false_discovery_adjustment, haar_overlap, mean_overlap

LAYERS, HEADS, SHARED, RANK, D = 4, 4, 2, 6, 40
CONFIG = {
    "model_type": "llama", "hidden_size": D, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": SHARED, "head_dim": RANK,
    "intermediate_size": 8, "vocab_size": 8,
}  # fmt: skip


def name_of(layer: int, role: str) -> str:
    return f"model.layers.{layer}.self_attn.{role}_proj.weight"


def gain_of(layer: int) -> str:
    return f"model.layers.{layer}.input_layernorm.weight"


def llama(seed: int = 0, *, gains: bool = False, **sizes: int) -> dict[str, Tensor]:
    """The attention of a Llama with fewer key-value heads than heads."""
    layers, heads, shared, rank, d = (
        sizes.get(key, value)
        for key, value in zip(
            ("layers", "heads", "shared", "rank", "d"), (LAYERS, HEADS, SHARED, RANK, D),
            strict=True,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(layers):
        for role, count in (("q", heads), ("k", shared), ("v", shared), ("o", heads)):
            w = torch.randn(count * rank, d, generator=generator)
            state[name_of(layer, role)] = w.T.contiguous() if role == "o" else w
        if gains:
            state[gain_of(layer)] = torch.rand(d, generator=generator) + 0.1
    return state


def rows_of(state: dict[str, Tensor], role: str) -> list[np.ndarray]:
    """The heads of all layers, (r, d) each, in float64."""
    heads = []
    for layer in range(LAYERS):
        w = state[name_of(layer, role)].double().numpy()
        w = w.T if role == "o" else w
        gain = state.get(gain_of(layer))
        if gain is not None and role != "o":
            w = w * gain.double().numpy()
        heads += np.split(w, len(w) // RANK)
    return heads


def by_angles(heads: list[np.ndarray]) -> np.ndarray:
    return np.array(
        [[(np.cos(subspace_angles(a.T, b.T)) ** 2).sum() for b in heads] for a in heads]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gains", [False, True])
def test_tables_are_those_of_the_principal_angles(dtype: torch.dtype, gains: bool) -> None:
    state = {name: w.to(dtype) for name, w in llama(gains=gains).items()}
    found = flagscope.head_overlaps(state, config=CONFIG, top=5)
    assert [space.space for space in found.spaces] == ["q", "k", "v", "o"]
    for space in found.spaces:
        exact = by_angles(rows_of(state, space.space))
        np.testing.assert_allclose(space.squared, exact, atol=1e-5)
        count = LAYERS * (SHARED if space.space in "kv" else HEADS)
        np.testing.assert_allclose(space.ratios, exact * D / RANK**2, atol=1e-4)
        null = haar_overlap(RANK, RANK, D)
        np.testing.assert_allclose(space.scores, (exact - null.mean) / null.sd, atol=1e-3)
        upper = (exact * D / RANK**2)[np.triu_indices(count, 1)]
        assert space.overlap_ratio == pytest.approx(upper.mean(), rel=1e-5)
        sd = mean_overlap([RANK] * count, D).sd
        assert space.overlap_ratio_sd == pytest.approx(sd)
        assert space.z == pytest.approx((upper.mean() - 1) / sd, abs=1e-3)
        assert [pair.overlap_ratio for pair in space.pairs] == pytest.approx(
            sorted(upper, reverse=True)[:5], rel=1e-5
        )
        assert (space.pairs_tested, space.status) == (len(upper), "ok")
    labels = [head.label for head in found["k"].heads]
    assert labels == [f"L{layer}H{h}.k" for layer in range(LAYERS) for h in range(SHARED)]


def test_weights_as_stored() -> None:
    state = llama(gains=True)
    plain = {name: w for name, w in state.items() if "norm" not in name}
    as_stored = flagscope.head_overlaps(state, config=CONFIG, fold_norms="none")
    for one, two in zip(
        as_stored.spaces, flagscope.head_overlaps(plain, config=CONFIG).spaces, strict=True
    ):
        np.testing.assert_array_equal(one.squared, two.squared)
    folded = flagscope.head_overlaps(state, config=CONFIG)
    assert abs(folded["q"].squared - as_stored["q"].squared).max() > 0.01
    np.testing.assert_array_equal(folded["o"].squared, as_stored["o"].squared)


def test_within_a_layer_the_numbers_are_those_of_a_scan() -> None:
    state = llama(gains=True)
    scanned = flagscope.scan(state, config=CONFIG, only="heads", fold_norms="all").result.heads
    found = flagscope.head_overlaps(state, config=CONFIG)
    for record in scanned:
        at = [i for i, head in enumerate(found[record.space].heads) if head.layer == record.layer]
        block = found[record.space].ratios[np.ix_(at, at)]
        np.testing.assert_allclose(block, record.pairwise, rtol=1e-5, atol=1e-5)


def test_planted_copies_across_layers_are_found() -> None:
    state = llama()
    generator = torch.Generator().manual_seed(9)
    heads = {key: state[name_of(key, "q")].view(HEADS, RANK, D) for key in (0, 2, 3)}
    turn = torch.randn(RANK, RANK, generator=generator)
    heads[3][1] = turn @ heads[0][2]
    heads[2][0] = heads[0][2] + 0.1 * torch.randn(RANK, D, generator=generator)
    found = flagscope.head_overlaps(state, config=CONFIG)
    space = found["q"]
    assert space.clusters == (("L0H2.q", "L2H0.q", "L3H1.q"),)
    first = space.pairs[0]
    assert (first.first, first.second) == ("L0H2.q", "L3H1.q")
    assert first.overlap_ratio == pytest.approx(D / RANK, rel=1e-5)
    assert first.mean_squared_cosine == pytest.approx(1, abs=1e-5)
    assert found["v"].clusters == ()


def test_p_values_are_adjusted_for_all_pairs_of_all_spaces() -> None:
    found = flagscope.head_overlaps(llama(), config=CONFIG, top=4)
    listed = [pair for space in found.spaces for pair in space.pairs]
    others = sum(space.pairs_tested for space in found.spaces) - len(listed)
    logs = [pair.log10_p for pair in listed] + [0.0] * others
    exact = false_discovery_adjustment(logs).p[: len(listed)]
    assert [pair.p_adjusted for pair in listed] == pytest.approx(list(exact))
    assert min(pair.p_adjusted or 0 for pair in listed) > 1e-3
    everything = flagscope.head_overlaps(llama(), config=CONFIG, top=1000)
    whole = {pair.first + pair.second: pair.p_adjusted for pair in everything["q"].pairs}
    for pair in found["q"].pairs:
        assert pair.p_adjusted is not None
        assert pair.p_adjusted >= (whole[pair.first + pair.second] or 0)


def test_random_heads_are_at_chance() -> None:
    """Means over many draws, within four standard errors; the spread too."""
    z = [
        space.z
        for seed in range(40)
        for space in flagscope.head_overlaps(llama(seed), config=CONFIG, top=0).spaces
    ]
    values = np.array([value for value in z if value is not None])
    assert len(values) == 160
    assert abs(values.mean()) < 4 / math.sqrt(160)
    # Var of a sample variance of normal values is 2/n.
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / 160)
    tables = flagscope.head_overlaps(llama(seed=99), config=CONFIG).spaces
    scores = np.concatenate([s.scores[np.triu_indices(len(s.measured), 1)] for s in tables])
    assert abs(scores.mean()) < 4 / math.sqrt(len(scores))


def test_heads_without_a_rank_are_named_and_left_out() -> None:
    state = llama()
    heads = {layer: state[name_of(layer, "q")].view(HEADS, RANK, D) for layer in range(LAYERS)}
    heads[0][1] = 0
    heads[1][2, 0, 0] = float("nan")
    heads[2][3, 4:] = heads[2][3, :2]
    space = flagscope.head_overlaps(state, config=CONFIG)["q"]
    odd = {head.label: (head.rank, head.status) for head in space.heads if head.rank < RANK}
    assert odd == {
        "L0H1.q": (0, "all zero"), "L1H2.q": (0, "not finite"), "L2H3.q": (4, "ok"),
    }  # fmt: skip
    assert len(space.measured) == len(space.squared) == LAYERS * HEADS - 2
    assert space.status == "2 of 16 heads cannot be measured"
    assert np.isfinite(space.squared).all()
    assert np.isfinite(space.scores).all()
    kept = [i for i in range(16) if i not in (1, 6)]
    rows = rows_of(state, "q")
    rows[11] = rows[11][:4]
    exact = by_angles([rows[i] for i in kept])
    np.testing.assert_allclose(space.squared, exact, atol=1e-5)
    assert np.diag(space.squared).round(4).tolist() == [RANK] * 9 + [4.0] + [RANK] * 4


def test_a_model_of_nothing_to_compare() -> None:
    state = {name: torch.zeros_like(w) for name, w in llama().items()}
    space = flagscope.head_overlaps(state, config=CONFIG)["q"]
    assert space.overlap_ratio is space.z is space.clusters is None
    assert (space.pairs, space.squared.shape) == ((), (0, 0))
    assert space.status == "16 of 16 heads cannot be measured"
    one = {**CONFIG, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    single = flagscope.head_overlaps(llama(layers=1, heads=1, shared=1), config=one)["q"]
    assert single.status == "a single head has no other to overlap with"
    multi = flagscope.head_overlaps(torch.nn.Sequential(torch.nn.Linear(3, 3)))
    assert multi.spaces == ()
    assert list(multi.pairs.columns)[:4] == ["stack", "space", "first", "second"]
    assert multi.summary.empty


def test_heads_that_fill_the_stream_have_no_freedom() -> None:
    state = llama(rank=D, heads=2, shared=2)
    config = {**CONFIG, "head_dim": D, "num_attention_heads": 2, "num_key_value_heads": 2}
    space = flagscope.head_overlaps(state, config=config)["v"]
    assert "no freedom" in space.status
    assert (space.z, space.scores.any()) == (None, False)
    assert space.overlap_ratio == pytest.approx(1, rel=1e-5)


# Memory


def test_less_memory_gives_the_same_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    state = llama(gains=True, rank=10, d=200)
    state[name_of(1, "q")].view(HEADS, 10, 200)[2] = 0
    config = {**CONFIG, "head_dim": 10, "hidden_size": 200}
    engine = importlib.import_module("flagscope.engine.head_overlaps")
    monkeypatch.setattr(engine, "_CHUNK", 8 * 10 * 200)
    monkeypatch.setattr(engine, "SLAB_BYTES", 1000)
    monkeypatch.setattr(engine, "_NARROWEST", 16)
    whole = flagscope.head_overlaps(state, config=config)
    asked = []
    stream = engine.overlaps_by_projectors

    def watched(rows, **sizes):
        asked.append(sizes["width"])
        return stream(rows, **sizes)

    monkeypatch.setattr(engine, "overlaps_by_projectors", watched)
    with pytest.raises(InputError, match="MB at least"):
        flagscope.head_overlaps(state, config=config, memory=2e5)
    parts = flagscope.head_overlaps(state, config=config, memory=3.6e5)
    assert len(asked) >= 2
    assert max(asked) < 200
    for one, two in zip(whole.spaces, parts.spaces, strict=True):
        assert one.heads == two.heads
        np.testing.assert_allclose(one.squared, two.squared, atol=1e-5)


# Pages of the mapped checkpoint are left out: the system takes them back when it needs them.
_PROCESS = """
import sys, threading, time
from pathlib import Path
import flagscope

def held():
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("RssAnon:")[2].split()[0])

small, large, memory = sys.argv[1], sys.argv[2], float(sys.argv[3])
flagscope.head_overlaps(small)  # imports
before, seen = held(), []

def watch():
    while True:
        seen.append(held())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
found = flagscope.head_overlaps(large, memory=memory)
print(max(seen) - before, *(float(space.squared.sum()) for space in found.spaces))
"""


def written(folder: Path, **sizes: int) -> Path:
    folder.mkdir()
    state = {name: w.bfloat16() for name, w in llama(**sizes).items()}
    save_file(state, folder / "model.safetensors")
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "d": "hidden_size",
             "shared": "num_key_value_heads", "rank": "head_dim"}  # fmt: skip
    config = {**CONFIG, **{names[key]: value for key, value in sizes.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_the_bound_on_memory_holds(tmp_path: Path) -> None:
    # 144 heads of 256 in 1024 dimensions: bases of 151 MB in q, and of 151 MB in o.
    small = written(tmp_path / "small", layers=2, heads=2, shared=1, rank=4, d=16)
    large = written(tmp_path / "large", layers=12, heads=12, shared=2, rank=256, d=1024)
    peaks, totals = [], []
    for memory in (3e9, 3.1e8):
        command = [sys.executable, "-c", _PROCESS, str(small), str(large), str(memory)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, *found = map(float, done.stdout.split())
        assert peak < memory
        peaks.append(peak)
        totals.append(found)
    # The bases of q and o alone are more than the others may hold.
    assert peaks[0] > 3e8
    assert totals[0] == pytest.approx(totals[1], rel=1e-7)


# What comes back


def test_frames_and_json(tmp_path: Path) -> None:
    found = flagscope.head_overlaps(llama(), config=CONFIG, spaces=["q", "o"], top=3)
    assert found.summary["space"].tolist() == ["q", "o"]
    assert len(found.pairs) == 6
    assert found.pairs["first"].str.match(r"L\dH\d\.[qo]$").all()
    path = tmp_path / "heads.json"
    text = found.to_json(path)
    assert path.read_text(encoding="utf-8") == text
    read = json.loads(text, parse_constant=pytest.fail)
    assert read["schema"] == "flagscope.heads/1"
    assert read == json.loads(json.dumps(found.to_dict()))
    assert [len(space["pairs"]) for space in read["spaces"]] == [3, 3]
    assert len(read["spaces"][0]["heads"]) == 16
    assert "16 q, 16 o" in repr(found)
    with pytest.raises(InputError, match="0 sets of heads"):
        found["k"]


@pytest.mark.parametrize(
    "wrong",
    [{"spaces": "x"}, {"spaces": ()}, {"fold_norms": "auto"}, {"top": -1}, {"memory": 0},
     {"memory": float("nan")}, {"device": "nowhere"}, {"family": "lama"}],
)  # fmt: skip
def test_wrong_arguments(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        flagscope.head_overlaps(llama(), config=CONFIG, **wrong)  # pyright: ignore[reportArgumentType]
    assert caught.value.hint


def test_fused_layernormed_heads_and_cross_attention() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=3, n_head=4, n_embd=32, add_cross_attention=True)
    torch.manual_seed(0)
    found = flagscope.head_overlaps(transformers.GPT2Model(config))
    spaces = {(space.attention, space.space): space for space in found.spaces}
    q = spaces["self", "q"]
    # Behind a LayerNorm one dimension fewer is read.
    assert (q.d, spaces["self", "o"].d, len(q.measured)) == (31, 32, 12)
    assert spaces["cross", "q"].heads[5].label == "L1H1.cross.q"
    for space in found.spaces:
        assert abs(space.z or 0) < 5, (space.attention, space.space)
