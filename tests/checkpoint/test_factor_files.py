"""Adapters in one file without settings, as kohya's scripts, ai-toolkit and diffusers save."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import flagscope
from flagscope.checkpoint import open_checkpoint
from flagscope.checkpoint.lora import read_adapter
from flagscope.errors import CorruptFileError, MissingFileError, SourceError

_MODULES = ("mid_block.attn1.to_q", "mid_block.attn1.to_v", "up.0.ff.net.0.proj", "up.0.ff.net.2")
_KINDS = ("kohya", "dots", "diffusers", "attention", "text", "peft")
Pairs = dict[str, tuple[Tensor, Tensor]]


def _pairs(seed: int = 0, rank: int = 4) -> Pairs:
    """B and A of each module."""
    draws = torch.Generator().manual_seed(seed)
    shapes = dict.fromkeys(_MODULES, (24, 16))
    return {
        name: (torch.randn(m, rank, generator=draws), torch.randn(rank, n, generator=draws))
        for name, (m, n) in shapes.items()
    }


def _tensors(pairs: Pairs, kind: str, alpha: float | None) -> dict[str, Tensor]:
    """The file of a tool; names by its own source."""
    ends = {
        "kohya": (".lora_up.weight", ".lora_down.weight"),
        "dots": (".lora_up.weight", ".lora_down.weight"),
        "diffusers": (".lora.up.weight", ".lora.down.weight"),
        "attention": ("_lora.up.weight", "_lora.down.weight"),
        "text": (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
        "peft": (".lora_B.weight", ".lora_A.weight"),
    }[kind]
    found = {}
    for name, (b, a) in pairs.items():
        stem = _stem(name, kind)
        found |= {stem + ends[0]: b.clone(), stem + ends[1]: a.clone()}
        if alpha is not None:
            found[stem + ".alpha"] = torch.tensor(alpha)
    return found


def _stem(name: str, kind: str) -> str:
    return "lora_unet_" + name.replace(".", "_") if kind == "kohya" else "unet." + name


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(("alpha", "scaling"), [(2.0, 0.5), (8.0, 2.0), (None, 1.0)])
def test_the_change_is_alpha_over_rank_up_times_down(
    kind: str, alpha: float | None, scaling: float, tmp_path: Path
) -> None:
    pairs = _pairs()
    file = tmp_path / "style.safetensors"
    save_file(_tensors(pairs, kind, alpha), file)
    with read_adapter(file) as adapter:
        assert len(adapter.factors) == len(pairs)
        assert (adapter.unusable, adapter.unknown, adapter.whole) == ((), (), {})
        for name, (b, a) in pairs.items():
            found = adapter.factors[_stem(name, kind)]
            left, right = adapter.matrices(found.module)
            assert found.scaling == scaling
            change = found.scaling * left @ right
            assert torch.allclose(change, scaling * (b.double() @ a.double()), atol=1e-12)
        said = f"no alpha is stored for 4 of 4 modules, such as {_stem(_MODULES[0], kind)}"
        assert [doubt.partition(":")[0] for doubt in adapter.doubts] == ([] if alpha else [said])


def test_kernels_are_low_rank_too(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, 6, 3, 3, generator=draws), torch.randn(8, 4, 1, 1, generator=draws)
    state = {"lora_unet_conv.lora_down.weight": down, "lora_unet_conv.lora_up.weight": up,
             "lora_unet_conv.alpha": torch.tensor(1.0)}  # fmt: skip
    save_file(state, tmp_path / "a.safetensors")
    with read_adapter(tmp_path / "a.safetensors") as adapter:
        left, right = adapter.matrices("lora_unet_conv")
        change = (adapter.factors["lora_unet_conv"].scaling * left @ right).reshape(8, 6, 3, 3)
    # What sd-scripts' merge_lora.py computes.
    merged = torch.nn.functional.conv2d(down.permute(1, 0, 2, 3), up).permute(1, 0, 2, 3) / 4
    assert torch.allclose(change.float(), merged, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [({"unet.r": 4, "unet.lora_alpha": 16}, 4.0), ({"r": 4, "lora_alpha": 2}, 0.5),
     ({"unet.r": 4, "unet.lora_alpha": 16, "unet.use_rslora": True}, 8.0),
     ({"unet.lora_alpha": 16, "unet.alpha_pattern": {"^up.0.ff.net.2": 4}}, (4.0, 1.0)),
     ({"text_encoder.r": 4, "text_encoder.lora_alpha": 16}, 1.0), ("no settings", 1.0)],
)  # fmt: skip
def test_settings_in_the_header_are_those_of_diffusers(
    settings: object, scaling: float | tuple[float, float], tmp_path: Path
) -> None:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    state = _tensors(_pairs(), "peft", None)
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors", {"lora_adapter_metadata": text})
    with read_adapter(tmp_path) as adapter:
        found = [adapter.factors[_stem(name, "peft")].scaling for name in _MODULES]
    first, last = scaling if isinstance(scaling, tuple) else (scaling, scaling)
    assert found == [first] * 3 + [last]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20, [1.0, 2.0]])
def test_an_alpha_that_is_not_a_number_is_damage(bad: object, tmp_path: Path) -> None:
    state = _tensors(_pairs(), "kohya", 1.0)
    state["lora_unet_up_0_ff_net_2.alpha"] = torch.tensor(bad)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CorruptFileError, match="is not a number"):
        read_adapter(tmp_path / "a.safetensors")


_OTHERS = {
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"),
    "LoKr": ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"),
    "OFT": ("oft_blocks", "alpha"),
    "whole changes": ("diff", "diff_b"),
}


@pytest.mark.parametrize("kind", _OTHERS)
def test_other_kinds_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    parts = {f"lycoris_attn_q.{end}": torch.ones(4, 4) for end in _OTHERS[kind]}
    for number in (1, 2):
        folder = tmp_path / f"step-{number}"
        folder.mkdir()
        save_file({name: number * one for name, one in parts.items()}, folder / "a.safetensors")
    with pytest.raises(SourceError, match=f"no LoRA factors but {kind}") as error:
        read_adapter(folder)
    assert error.value.hint
    with pytest.raises(SourceError, match=f"no LoRA factors but {kind}"):
        flagscope.compare(tmp_path / "step-1", folder)
    report = flagscope.track(tmp_path)
    assert any(f"no LoRA factors but {kind}" in note for note in report.result.notes)
    assert (len(report.curves), len(report.adapters)) == (0, 0)


def test_what_stands_next_to_pairs_is_said(tmp_path: Path) -> None:
    state = _tensors(_pairs(), "kohya", 4.0)
    state["lora_unet_mid_block_attn1_to_q.dora_scale"] = torch.ones(24, 1)
    state["lora_unet_conv.lora_down.weight"] = torch.ones(2, 4, 1, 1)
    state["lora_unet_conv.lora_mid.weight"] = torch.ones(2, 2, 3, 3)
    state["lora_unet_conv.lora_up.weight"] = torch.ones(8, 2, 1, 1)
    state["lora_unet_norm.diff"] = torch.ones(4)
    state["lora_unet_lost.lora_up.weight"] = torch.ones(8, 2)
    for number in (1, 2):
        moved = {name: number * tensor for name, tensor in state.items()}
        save_file(moved, tmp_path / f"s-{number}.safetensors")
    with read_adapter(tmp_path / "s-1.safetensors") as adapter:
        reasons = {one.module: one.reason for one in adapter.unusable}
        assert reasons == {"lora_unet_conv": "core", "lora_unet_lost": "incomplete"}
        assert adapter.unknown == ("lora_unet_norm.diff",)
    notes = " ".join(flagscope.track(tmp_path).result.notes)
    for said in ("dora_scale", "lora_unet_norm.diff", "lora_unet_conv, lora_unet_lost"):
        assert said in notes


def test_a_model_with_factors_in_it_is_not_an_adapter(tmp_path: Path) -> None:
    state = _tensors(_pairs(), "dots", None) | {
        "unet.mid_block.attn1.to_q.weight": torch.ones(4, 4)
    }
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(MissingFileError, match="not an adapter"):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", _KINDS)
def test_a_series_has_the_numbers_of_the_dense_change(kind: str, tmp_path: Path) -> None:
    steps = []
    for number in (250, 500, 1000):
        pairs = {n: (b * number / 500, a) for n, (b, a) in _pairs().items()}
        steps.append(pairs)
        # As kohya's scripts and ai-toolkit name them; ten before nine by text.
        save_file(_tensors(pairs, kind, 2.0), tmp_path / f"style-step{number}.safetensors")
    report = flagscope.track(tmp_path)
    assert report.steps["number"].tolist() == [250, 500, 1000]
    assert len(report.curves) == 0
    curves = {one.module: one for one in report.result.adapters}
    assert set(curves) == {_stem(name, kind) for name in _MODULES}
    for name in _MODULES:
        found = curves[_stem(name, kind)]
        assert found.random == "lora_A"
        for place, pairs in enumerate(steps):
            b, a = pairs[name]
            sigma = np.linalg.svd((0.5 * b.double() @ a.double()).numpy(), compute_uv=False)[:4]
            assert found.singular_values[place] == pytest.approx(list(sigma), rel=1e-6)
            assert found.values("norm")[place] == pytest.approx(np.linalg.norm(sigma), rel=1e-6)
            assert found.values("drift")[place] == pytest.approx(0, abs=1e-12)


def test_two_spellings_of_one_adapter_are_the_same(tmp_path: Path) -> None:
    save_file(_tensors(_pairs(), "dots", 8.0), tmp_path / "a.safetensors")
    state = _tensors(_pairs(), "peft", None)
    text = json.dumps({"unet.lora_alpha": 8})
    save_file(state, tmp_path / "b.safetensors", {"lora_adapter_metadata": text})
    report = flagscope.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert report.result.adapters is not None
    assert report.result.adapters.outcome == "same"
    assert report.result.adapters.energy_cosine == pytest.approx(1)


def test_names_with_underscores_find_a_models_tensors(tmp_path: Path) -> None:
    pairs = _pairs()
    base = {f"{name}.weight": torch.ones(24, 16) for name in _MODULES}
    merged = {
        f"{name}.weight": base[f"{name}.weight"] + 0.5 * b @ a for name, (b, a) in pairs.items()
    }
    save_file(base, tmp_path / "base.safetensors")
    save_file(merged, tmp_path / "merged.safetensors")
    save_file(_tensors(pairs, "kohya", 2.0), tmp_path / "style.safetensors")
    near = flagscope.compare(tmp_path / "base.safetensors", tmp_path / "style.safetensors")
    assert near.result.coverage is not None
    assert near.result.coverage.counts == {"matched": 4}
    assert near.result.coverage.faults == []
    assert near.result.change_status == "ok"
    report = flagscope.compare(
        tmp_path / "base.safetensors", tmp_path / "merged.safetensors",
        adapter=tmp_path / "style.safetensors",
    )  # fmt: skip
    assert report.verdict.code == "adapter-applied"
    assert report.result.replay is not None
    assert report.result.replay.strength == pytest.approx(1, abs=1e-4)
    with open_checkpoint(tmp_path / "style.safetensors", base=tmp_path / "base.safetensors") as one:
        for name, tensor in merged.items():
            assert torch.allclose(one.read(name), tensor, atol=1e-6)
    with open_checkpoint(tmp_path / "style.safetensors") as alone:
        assert any("factors of an adapter" in note for note in alone.notes)


def test_magnitudes_are_not_merged_without_a_word(tmp_path: Path) -> None:
    state = _tensors(_pairs(), "kohya", 4.0)
    state["lora_unet_mid_block_attn1_to_q.dora_scale"] = torch.ones(24, 1)
    save_file(state, tmp_path / "style.safetensors")
    save_file(
        {f"{name}.weight": torch.ones(24, 16) for name in _MODULES}, tmp_path / "b.safetensors"
    )
    with pytest.raises(SourceError, match="dora_scale"):
        open_checkpoint(tmp_path / "style.safetensors", base=tmp_path / "b.safetensors")
