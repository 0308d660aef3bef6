"""Large tensors are read in blocks of rows: what comes out does not depend on their size."""

from __future__ import annotations

import pytest
import torch

from comparison.adapters.peft_models import merged_case

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's and transformers' own
PLACE = "flagscope.comparison.adapters."


def small_blocks(monkeypatch):
    monkeypatch.setattr(PLACE + "blocks._BLOCK", 640)
    monkeypatch.setattr(PLACE + "blocks._READ", 1500)
    monkeypatch.setattr(PLACE + "untouched._READ", 700)


@pytest.mark.parametrize("lora", [
    {}, {"use_dora": True}, {"use_dora": True, "kind": "gpt2"}, {"kind": "gpt2"},
    {"target_modules": ["embed_tokens", "q_proj"], "embeddings": True},
    {"modules_to_save": ["lm_head"]},
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_any_size(tmp_path, monkeypatch, lora, dtype):
    case = merged_case(tmp_path, dtype=dtype, safe=True, **lora)
    strange = {name: tensor.roll(1, 0) for name, tensor in case.merged.items()}
    whole = [case.replay(), case.replay(merged=case.base), case.replay(merged=strange)]
    small_blocks(monkeypatch)
    parts = [case.replay(), case.replay(merged=case.base), case.replay(merged=strange)]
    for one, two in zip(whole, parts, strict=True):
        assert one.outcome == two.outcome
        assert one.counts == two.counts
        assert one.untouched.changed_names == two.untouched.changed_names
        assert one.untouched.largest_relative == pytest.approx(two.untouched.largest_relative)
        for a, b in zip(one.modules, two.modules, strict=True):
            assert (a.entries, a.entries_unchanged) == (b.entries, b.entries_unchanged)
            assert a.residual_norm == pytest.approx(b.residual_norm, rel=1e-6, abs=1e-12)
            if a.share_in_span is not None:
                assert a.share_in_span == pytest.approx(b.share_in_span, rel=1e-9)
            if a.status == "applied":
                assert a.entries_outside == b.entries_outside == 0
                # Another order of summation moves few numbers of a short type over a tie.
                if dtype == torch.bfloat16:
                    assert abs(a.entries_equal - b.entries_equal) < 0.01 * a.entries


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_and_progress(tmp_path, workers):
    from comparison.adapters.peft_models import checkpoint
    from flagscope.checkpoint.lora import read_adapter
    from flagscope.comparison.adapters.replay import replayed_merge

    case, seen = merged_case(tmp_path), []
    with read_adapter(case.adapter) as adapter:
        record = replayed_merge(
            checkpoint(case.base), checkpoint(case.merged), adapter, workers=workers,
            progress=lambda done, total, name: seen.append((done, total, name)),
        )  # fmt: skip
    assert [entry[:2] for entry in seen] == [(k, 14) for k in range(1, 15)]
    assert [entry[2] for entry in seen] == [module.module for module in record.modules]
    assert record == case.replay()
