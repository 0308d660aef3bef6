"""Two adapters: formed changes, strangers with one seed, planted overlap, other shapes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from comparison.adapters.peft_models import LLAMA, checkpoint, tiny
from flagscope.checkpoint.lora import read_adapter
from flagscope.comparison.adapters.pair import compared_adapters
from flagscope.errors import FlagscopeError

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's and transformers' own
START = "base_model.model."


def saved(folder, tensors, **settings):
    """An adapter of {module: (B, A)}, opened."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = {}
    for module, (b, a) in tensors.items():
        flat[f"{START}{module}.lora_A.weight"] = a.float().contiguous()
        flat[f"{START}{module}.lora_B.weight"] = b.float().contiguous()
    save_file(flat, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return read_adapter(folder)


def random(m, n, r, seed):
    generator = torch.Generator().manual_seed(seed)
    a = (torch.rand(r, n, generator=generator) * 2 - 1) / math.sqrt(n)
    return torch.randn(m, r, generator=generator) * 0.02, a


@pytest.mark.parametrize(("r", "s"), [(4, 4), (2, 8), (1, 1)])
def test_equal_to_the_formed_changes(tmp_path, r, s):
    b, a = random(40, 60, r, 0)
    d, c = random(40, 60, s, 1)
    record = compared_adapters(saved(tmp_path / "a", {"m.q": (b, a)}),
                               saved(tmp_path / "b", {"m.q": (d, c)}))  # fmt: skip
    one, two = 8 / r * b.double() @ a.double(), 8 / s * d.double() @ c.double()
    (module,) = record.modules
    size = float(one.norm() * two.norm())
    assert module.a.norm == pytest.approx(float(one.norm()), rel=1e-12)
    assert abs(module.inner - float((one * two).sum())) <= 1e-12 * size
    assert record.energy_cosine == pytest.approx(float((one * two).sum()) / size, abs=1e-12)
    assert module.a.singular_values == pytest.approx(
        torch.linalg.svdvals(one)[:r].tolist(), rel=1e-12
    )
    assert module.status == record.outcome == "chance"
    q, z = (torch.linalg.qr(factor.double()).Q for factor in (b, d))
    assert module.write.overlap == pytest.approx(float((q.T @ z).square().sum()), rel=1e-9)


def trained(folder, seed, task, **lora):
    """An adapter trained for a task of its own on one small model."""
    peft = pytest.importorskip("peft")
    model = tiny("llama", torch.float32)
    model.config.save_pretrained(folder / "base")
    model.name_or_path = str(folder / "base")
    torch.manual_seed(seed)
    tuned = peft.get_peft_model(model, peft.LoraConfig(**{"target_modules": LLAMA, "r": 8} | lora))
    generator = torch.Generator().manual_seed(task)
    after = torch.randperm(60, generator=generator)
    optimizer = torch.optim.AdamW((p for p in tuned.parameters() if p.requires_grad), lr=3e-3)
    for _ in range(25):
        ids = torch.randint(60, (8, 12), generator=generator)
        ids[:, 1::2] = after[ids[:, ::2]]
        loss = tuned(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return read_adapter(folder / "adapter")


def test_strangers_with_one_seed(tmp_path):
    one, two = trained(tmp_path / "a", 42, 1), trained(tmp_path / "b", 42, 2)
    record = compared_adapters(one, two)
    assert record.start_correlation > 0.8
    assert all(module.start.common for module in record.modules)
    assert all(module.read.explained > 0.5 * module.read.overlap for module in record.modules)
    assert record.outcome != "chance"
    assert abs(record.energy_cosine_left) < abs(record.energy_cosine)
    assert any("start" in line for line in record.cannot_tell)


def test_strangers_with_seeds_of_their_own(tmp_path):
    record = compared_adapters(trained(tmp_path / "a", 1, 1), trained(tmp_path / "b", 2, 2))
    assert not any(module.start.common for module in record.modules)
    assert abs(record.start_correlation) < 0.1
    assert record.energy_cosine_left == record.energy_cosine


def test_only_the_start_is_shared(tmp_path):
    start = random(300, 200, 8, 0)[1]
    sides = []
    for seed in (1, 2):
        factors = {}
        for layer in range(6):
            b, change = random(300, 200, 8, 10 * seed + layer)
            factors[f"m.{layer}.q"] = (b, start + 0.2 * change)
        sides.append(saved(tmp_path / str(seed), factors))
    record = compared_adapters(*sides)
    assert record.outcome == "shared_by_start"
    assert all(module.read.ratio > 10 for module in record.modules)
    assert all(abs(module.read.left_z) < 5 for module in record.modules)
    assert all(abs(module.left_z) < 5 for module in record.modules)


@pytest.mark.parametrize("common", [True, False])
def test_a_shared_direction_is_seen_beyond_the_start(tmp_path, common):
    generator = torch.Generator().manual_seed(3)
    write, read = torch.randn(300, generator=generator), torch.randn(200, generator=generator)
    write, read = write / write.norm(), read / read.norm()
    sides = []
    for seed in (1, 2):
        b, a = random(300, 200, 8, 0 if common else seed)
        b = random(300, 200, 8, 50 + seed)[0]
        # The direction is carried by other rows in either adapter, as training leaves it.
        rows = torch.zeros(8)
        rows[seed] = 1.0
        planted = b + torch.outer(write, rows), a + torch.outer(rows, read)
        sides.append(saved(tmp_path / str(seed), {"m.q": planted}))
    record = compared_adapters(*sides)
    assert record.modules[0].status == "shared_beyond_start"
    assert record.modules[0].energy_cosine_left > 0.3


def test_false_positives(tmp_path):
    """Of 400 modules of strangers, none is said to share anything."""
    sides = []
    for seed in (0, 1):
        factors = {f"m.{k}.q": random(96, 64, 4, 1000 * seed + k) for k in range(400)}
        sides.append(saved(tmp_path / str(seed), factors))
    record = compared_adapters(*sides)
    assert record.counts == {"chance": 400}


def test_same_scaled_and_zero(tmp_path):
    b, a = random(30, 20, 4, 0)
    g = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).Q
    one = saved(tmp_path / "a", {"m.q": (b, a)})
    same = saved(tmp_path / "b", {"m.q": (b @ g, g.T @ a)})  # other factors, the same product
    record = compared_adapters(one, same)
    assert record.outcome == "same"
    zero = saved(tmp_path / "c", {"m.q": (torch.zeros(30, 4), a)})
    record = compared_adapters(one, zero)
    assert record.counts == {"zero": 1}
    assert record.modules[0].b.used_rank == 0
    assert record.faults_b[0].code == "zero_effect"
    record.model_dump_json()


def test_dead_directions(tmp_path):
    b, a = random(30, 20, 8, 0)
    b[:, 5:] = 0
    record = compared_adapters(saved(tmp_path / "a", {"m.q": (b, a)}),
                               saved(tmp_path / "b", {"m.q": random(30, 20, 8, 1)}))  # fmt: skip
    assert record.modules[0].a.dead_directions == 3
    assert record.modules[0].b.dead_directions == 0


def test_modules_of_one_alone_and_other_shapes(tmp_path):
    one = saved(tmp_path / "a", {"m.q": random(30, 20, 4, 0), "m.v": random(30, 20, 4, 1),
                                 "m.o": random(30, 20, 4, 2)})  # fmt: skip
    two = saved(tmp_path / "b", {"model.m.q": random(30, 20, 4, 3), "m.k": random(30, 20, 4, 4),
                                 "m.o": random(10, 20, 4, 2)})  # fmt: skip
    record = compared_adapters(one, two)
    assert record.only_a == ["m.v"]
    assert record.only_b == ["m.k"]
    assert [module.a.module for module in record.modules] == ["m.q"]
    assert any("shapes" in line for line in record.cannot_tell)
    mirrored = record.mirrored()
    assert (mirrored.only_a, mirrored.norm_a) == (record.only_b, record.norm_b)
    assert mirrored.mirrored() == record


def test_kernels_and_embeddings(tmp_path):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    tensors = {
        START + "conv.lora_A.weight": normal(2, 3, 3, 3),
        START + "conv.lora_B.weight": normal(8, 2, 1, 1),
        START + "emb.lora_embedding_A": normal(2, 50),
        START + "emb.lora_embedding_B": normal(16, 2),
    }
    folder = tmp_path / "a"
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 2}))
    with read_adapter(folder) as adapter:
        record = compared_adapters(adapter, adapter)
    assert record.outcome == "same"
    assert {module.start.factor for module in record.modules} == {"lora_A", "lora_B"}
    with read_adapter(folder) as adapter:
        lost = compared_adapters(adapter, adapter, base=checkpoint({"conv.weight": normal(8, 27)}))
    assert "names_match_nothing" in {fault.code for fault in lost.faults_a}


def test_hostile_factors(tmp_path):
    huge = saved(tmp_path / "a", {"m.q": (torch.full((4, 2), 3e38), torch.full((2, 4), 3e38))})
    record = compared_adapters(huge, huge)
    record.model_dump_json()
    with pytest.raises(FlagscopeError):
        compared_adapters(huge, saved(tmp_path / "b", {"m.q": (torch.full((4, 2), math.nan),
                                                               torch.ones(2, 4))}))  # fmt: skip


def test_a_part_of_an_adapter_is_not_the_same_adapter(tmp_path):
    modules = {f"m.{layer}.q": random(400, 600, 4, layer) for layer in range(3)}
    part = {name: factors for name, factors in modules.items() if "0" not in name}
    record = compared_adapters(saved(tmp_path / "a", modules), saved(tmp_path / "b", part))
    assert set(record.counts) == {"same"}
    assert record.outcome == "shared_beyond_start"
    assert "1 in one of the two alone" in record.evidence[0]


@pytest.mark.parametrize("alpha", [-8, 64])
def test_a_multiple_is_not_explained_by_a_common_start(tmp_path, alpha):
    modules = {"m.q": random(400, 600, 4, 0)}
    one = saved(tmp_path / "a", modules)
    record = compared_adapters(one, saved(tmp_path / "b", modules, lora_alpha=alpha))
    assert record.outcome == "shared_beyond_start"
    assert any("times a factor" in line for line in record.evidence)
