"""`flagscope.compare`: verdicts from end to end, the mirror of two orders, and what it writes."""

from __future__ import annotations

import json
import math
import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import flagscope
from flagscope.cli.comparison_text import print_comparison
from flagscope.demo import checkpoints
from flagscope.errors import InputError
from flagscope.report.wording import number, percent
from flagscope.schema import COMPARE_SCHEMA_FILE, compare_schema

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> State:
    """The bundled language model, in float32."""
    state = load_file(checkpoints()[-1])
    return {name: tensor.float() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads((checkpoints()[-1].parent / "config.json").read_text())


@pytest.fixture(scope="module")
def tuned(config: dict[str, Any], model: State) -> flagscope.ComparisonReport:
    return flagscope.compare(model, noisy(model, layer=2), config=config)


def noisy(state: State, *, layer: int, share: float = 0.05) -> State:
    """A copy in which the matrices of one layer moved by a share of their norm."""
    generator = torch.Generator().manual_seed(1)
    moved = {}
    for name, tensor in state.items():
        step = torch.randn(tensor.shape, generator=generator)
        here = f".{layer}." in name and tensor.ndim == 2
        moved[name] = tensor + here * share * tensor.norm() / step.norm() * step
    return moved


def mirrored(part: Any) -> Any:
    """JSON with the sides exchanged: fields a and b, names ending so, letters, signs."""
    if isinstance(part, dict):
        return {_other(key): _signed(key, mirrored(value)) for key, value in part.items()}
    if isinstance(part, list):
        return [mirrored(value) for value in part]
    if part in ("a", "b"):
        return _other(part)
    if isinstance(part, str):
        return re.sub(r"\b[AB]\b", lambda letter: "BA"["AB".index(letter[0])], part)
    return part


def _other(key: str) -> str:
    swap = {"a": "b", "b": "a"}
    if key in swap:
        return swap[key]
    return key[:-1] + swap[key[-1]] if key[-2:] in ("_a", "_b") else key


def _signed(key: str, value: Any) -> Any:
    return 0.0 - value if key == "difference" and isinstance(value, float) else value


def content(report: flagscope.ComparisonReport) -> dict[str, Any]:
    """All but what the run cost."""
    written = json.loads(report.to_json())
    del written["run"]
    return written


# Verdicts


def test_the_same_weights_are_identical_at_distance_0(model: State) -> None:
    report = flagscope.compare(model, {name: tensor.clone() for name, tensor in model.items()})
    assert report.verdict.code == "identical"
    assert report.result.change is None
    tensors = report.tensors
    assert set(tensors["content"]) == {"identical"}
    assert report.findings == []
    assert repr(report).endswith(", 0 findings)")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_weights_are_the_same_up_to_rounding(model: State, dtype: torch.dtype) -> None:
    rounded = {name: tensor.to(dtype) for name, tensor in model.items()}
    report = flagscope.compare(model, rounded)
    assert report.verdict.code == "re-encoded"
    assert report.result.change_status == "nothing moved further than rounding"


def test_one_flipped_bit_is_named(model: State) -> None:
    rounded = {name: tensor.bfloat16() for name, tensor in model.items()}
    name = next(name for name, tensor in rounded.items() if tensor.ndim == 2)
    bits = rounded[name].view(torch.int16)
    bits[3, 5] ^= 1 << 2
    report = flagscope.compare(model, rounded)
    assert report.verdict.code == "few-entries"
    (finding,) = report.findings
    assert finding.code == "entries-outside-rounding"
    assert "1 entry that rounding does not explain" in finding.text
    assert finding.plain.startswith("A tensor has single numbers that differ by more than")
    assert repr(report).endswith(", 1 finding)")
    assert repr(finding).startswith("ComparisonFinding(entries-outside-rounding, strong: ")
    shown = report._repr_html_()
    assert all(text in shown for text in (report.verdict.text, finding.plain, finding.text))
    assert "[3, 5]" in finding.evidence[0]
    assert "bit 2" in finding.evidence[0]


def test_training_from_one_model_says_how_far_and_where(
    tuned: flagscope.ComparisonReport,
) -> None:
    assert tuned.verdict.code == "fine-tuned"
    assert "layer 2 (100 % of the squared change)" in tuned.verdict.text
    moved = tuned.maps[tuned.maps["status"] == "ok"]
    assert set(moved["layer"]) == {2}
    torch.testing.assert_close(
        torch.tensor(moved["relative_a"].to_numpy()), torch.full((len(moved),), 0.05).double(),
        rtol=0.2, atol=0,
    )  # fmt: skip
    heads = tuned.heads
    assert set(heads[heads["status"] == "ok"]["layer"]) == {2}


def test_shares_of_both_norms_say_so(model: State, config: dict[str, Any]) -> None:
    """Where one side is much larger, a change over A's norm and over both norms are far apart."""
    larger = {name: 9 * tensor for name, tensor in noisy(model, layer=2, share=1.0).items()}
    report = flagscope.compare(model, larger, config=config, only=("content", "change"))
    change = report.result.change
    assert change is not None
    assert change.relative_a is not None
    assert change.relative_b is not None
    of_both = percent((change.relative_a * change.relative_b) ** 0.5, 2)
    assert of_both != percent(change.relative_a, 2)
    assert f"moved by {of_both} of both norms (geometric mean)" in report.verdict.text
    page = report.to_html()
    assert "geometric mean of its norms in A and in B" in page
    assert "% of the norm" not in page


def test_other_weights_of_the_same_shapes_are_unrelated(model: State) -> None:
    generator = torch.Generator().manual_seed(2)
    other = {
        name: torch.randn(tensor.shape, generator=generator) * tensor.std(unbiased=False)
        for name, tensor in model.items()
    }
    report = flagscope.compare(model, other)
    assert report.verdict.code == "unrelated"
    assert report.result.change_status.startswith("the two are unrelated")


def test_another_architecture_says_what_is_comparable(model: State) -> None:
    report = flagscope.compare(
        model, {"0.weight": torch.randn(8, 4), "2.weight": torch.randn(2, 8)}
    )
    assert report.verdict.code == "different-architectures"
    codes = {finding.code for finding in report.result.findings}
    assert "unpaired-tensors" in codes


def test_a_linear_merge_has_its_coefficients(model: State, config: dict[str, Any]) -> None:
    one, two = noisy(model, layer=1), noisy(model, layer=2)
    merge = {name: 0.25 * one[name] + 0.75 * two[name] for name in model}
    report = flagscope.compare(model, merge, parents=[one, two], only="content")
    assert report.verdict.code == "merge"
    assert "0.250 · parent 1" in report.verdict.text
    assert "0.750 · parent 2" in report.verdict.text
    assert len(report.result.parents) == 2


def test_a_model_of_one_vector_is_mapped_without_trouble() -> None:
    weights = {"weight": torch.ones(8)}
    report = flagscope.compare(weights, weights)
    assert report.verdict.code == "identical"
    assert not any("failed" in note for note in report.result.notes)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of PEFT's, three adapters of it, two of one seed, and what one merges to."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    warnings.simplefilter("ignore", FutureWarning)  # of one of the two about the other
    folder = tmp_path_factory.mktemp("adapters")
    settings = transformers.GPT2Config(
        n_embd=64, n_head=4, n_layer=2, vocab_size=60, n_positions=16
    )

    def base() -> Any:
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(settings)

    base().save_pretrained(folder / "base")
    for name, seed in (("one", 1), ("twin", 1), ("other", 2)):
        model = base()
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True)
        adapted = peft.get_peft_model(model, config)
        generator = torch.Generator().manual_seed(len(name) + seed)
        for key, parameter in adapted.named_parameters():
            if ".lora_B." in key:
                parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
        adapted.save_pretrained(folder / name)
        if name == "one":
            adapted.merge_and_unload().save_pretrained(folder / "merged")
    return {path.name: path for path in folder.iterdir()}


def test_a_merged_adapter_is_found_at_its_strength(adapters: dict[str, Path]) -> None:
    base, merged = adapters["base"], adapters["merged"]
    report = flagscope.compare(base, merged, adapter=adapters["one"], only="content")
    assert report.verdict.code == "adapter-applied"
    assert "2 of 2 modules, strength 1.000" in report.verdict.text
    assert report.result.adapter is not None
    assert report.result.adapter.kind == "adapter"
    missed = flagscope.compare(base, base, adapter=adapters["one"], only="content")
    assert missed.verdict.code == "adapter-not-applied"
    other = flagscope.compare(base, merged, adapter=adapters["other"], only="content")
    assert other.verdict.code == "adapter-other-adapter"


@pytest.mark.parametrize("turned", [False, True])
def test_an_adapter_for_a_model_says_what_it_would_move(
    adapters: dict[str, Path], turned: bool
) -> None:
    pair = (adapters["one"], adapters["base"]) if turned else (adapters["base"], adapters["one"])
    report = flagscope.compare(*pair)
    assert report.verdict.code == "adapter-fits"
    change = report.result.change
    assert change is not None
    assert {row.role for row in change.layers if row.change} == {"q", "k", "v"}
    moved = next(entry for entry in change.maps if entry.change)
    assert moved.signal_rank in range(1, 5)
    assert "Modules of the adapter" in report.to_html()


def test_two_adapters_of_one_seed_share_their_start(adapters: dict[str, Path]) -> None:
    report = flagscope.compare(adapters["one"], adapters["twin"])
    assert report.verdict.code == "adapters-shared-by-start"
    assert "no conflict is called" in report.verdict.cannot_tell[0]
    strangers = flagscope.compare(adapters["one"], adapters["other"])
    assert strangers.verdict.code == "adapters-chance"
    back = flagscope.compare(adapters["other"], adapters["one"])
    assert mirrored(content(back)) == content(strangers)
    same = flagscope.compare(adapters["one"], adapters["one"])
    assert same.verdict.code == "adapters-same"


def test_an_adapter_goes_with_two_models_alone(adapters: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="a side is an adapter itself"):
        flagscope.compare(adapters["base"], adapters["one"], adapter=adapters["one"])
    with pytest.raises(InputError, match="parents are given"):
        flagscope.compare(adapters["base"], adapters["one"], parents=[adapters["merged"]])


# Two orders


def test_two_orders_mirror_each_other(
    model: State, config: dict[str, Any], tuned: flagscope.ComparisonReport
) -> None:
    back = flagscope.compare(noisy(model, layer=2), model, config=config)
    assert mirrored(content(back)) == content(tuned)


def test_two_orders_of_unlike_models_mirror_each_other(model: State) -> None:
    part = {name: tensor for name, tensor in model.items() if ".3." not in name}
    one, other = (flagscope.compare(*pair) for pair in ((model, part), (part, model)))
    assert mirrored(content(other)) == content(one)


def saved_adapter(folder: Path, modules: dict[str, tuple[Tensor, Tensor]]) -> Path:
    folder.mkdir()
    factors = {}
    for module, (second, first) in modules.items():
        factors[f"base_model.model.{module}.lora_A.weight"] = first
        factors[f"base_model.model.{module}.lora_B.weight"] = second
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_two_orders_of_adapters_mirror_each_other(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def factors(rank: int, *, size: float = 1.0) -> tuple[Tensor, Tensor]:
        second = size * torch.randn(40, rank, generator=generator)
        return second, torch.randn(rank, 60, generator=generator)

    one = saved_adapter(tmp_path / "p", {"m.q": factors(4), "m.k": factors(4, size=0)})
    two = saved_adapter(tmp_path / "r", {"m.q": factors(2), "m.v": factors(2), "m.k": factors(3)})
    there, back = flagscope.compare(one, two), flagscope.compare(two, one)
    assert mirrored(content(back)) == content(there)
    assert any(line.startswith("A: modules change nothing") for line in there.verdict.evidence)
    assert [finding.code for finding in there.result.findings] == ["zero-effect"]


def test_buffers_that_differ_are_not_identical(model: State) -> None:
    one, other = ({**model, "norm.running_mean": torch.full((8,), float(at))} for at in (0, 1))
    report = flagscope.compare(one, other)
    assert report.verdict.code == "shares-parts"
    assert report.verdict.text == "the same but for norm.running_mean"


def test_rows_that_one_side_adds_are_named(model: State) -> None:
    name = "transformer.wte.weight"
    longer = {**model, name: torch.cat([model[name], torch.ones(5, model[name].shape[1])])}
    report = flagscope.compare(model, longer, only="content")
    assert report.verdict.text == f"the same but for rows that one side adds to {name}"


@pytest.mark.parametrize("factor", [-1.0, 3.0])
def test_a_scaled_copy_is_named(model: State, factor: float) -> None:
    report = flagscope.compare(model, {name: factor * tensor for name, tensor in model.items()})
    assert report.verdict.code == "rearranged"


def test_a_merge_has_the_coefficients_of_a_mean(model: State) -> None:
    other = noisy(model, layer=1)
    merge = {name: 0.5 * model[name] + 0.5 * other[name] for name in model}
    for first, second in ((model, merge), (merge, model)):
        report = flagscope.compare(first, second, parents=[other], only="content")
        assert report.verdict.text.count("0.500 ·") == 2


# What it writes


def test_the_published_schema_is_up_to_date() -> None:
    published = json.loads(COMPARE_SCHEMA_FILE.read_text("utf-8"))
    assert published == compare_schema(), "run `python -m flagscope.schema --write`"


def test_comparisons_follow_the_schema(model: State, tuned: flagscope.ComparisonReport) -> None:
    check = jsonschema.Draft202012Validator(compare_schema())
    for report in (tuned, flagscope.compare(model, model)):
        check.validate(json.loads(report.to_json()))


def test_json_there_and_back(tuned: flagscope.ComparisonReport, tmp_path: Path) -> None:
    tuned.to_json(tmp_path / "comparison.json")
    assert flagscope.ComparisonReport.from_json(tmp_path / "comparison.json").result == tuned.result
    (tmp_path / "broken.json").write_text('{"schema": "flagscope.scan/2"}')
    with pytest.raises(InputError, match=r"not a comparison of schema flagscope\.compare/1"):
        flagscope.ComparisonReport.from_json(tmp_path / "broken.json")


def test_paths_of_this_machine_are_shortened(model: State, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file(model, tmp_path / f"{name}.safetensors")
    report = flagscope.compare(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    assert str(tmp_path) not in report.to_json()
    assert str(tmp_path) not in report.to_html()
    assert str(tmp_path) in report.to_json(paths=True)


def test_heads_have_both_sides(tuned: flagscope.ComparisonReport) -> None:
    heads = {head.name: head for head in tuned.result.heads}
    still, moved = heads["layer.0.head.0.ov"], heads["layer.2.head.0.ov"]
    assert still.product_spectrum_a == still.product_spectrum_b
    assert still.values_a == still.values_b
    assert moved.product_spectrum_a != moved.product_spectrum_b


def _perceptron(*, deeper: int = 0, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    sizes = [20, *[32] * (2 + deeper), 10]
    return {
        f"{2 * n}.{part}": torch.randn(shape, generator=generator)
        for n, (inputs, outputs) in enumerate(pairwise(sizes))
        for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
    }


def _tuned(state: State) -> State:
    generator = torch.Generator().manual_seed(7)
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in state.items()
    }


def test_pairs_stand_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    a = _perceptron()
    b = _tuned(a)
    change = flagscope.compare(a, b, config={"activation": "relu"}).result.change
    assert change is not None
    scans = [flagscope.scan(side, config={"activation": "relu"}).result.pairs for side in (a, b)]
    assert change.pairs_compared == len(change.pairs) == 2
    for found, before, after in zip(change.pairs, *scans, strict=True):
        assert found.pair == before.name
        assert {found.gram_correlation_a, found.gram_correlation_b} == {
            before.gram_correlation,
            after.gram_correlation,
        }
        assert found.commutator_ratio_a == before.commutator_ratio
        assert found.label == "gauge"
    unknown = flagscope.compare(a, b)
    assert unknown.result.change is not None
    assert {pair.label for pair in unknown.result.change.pairs} == {None}
    print_comparison(unknown.result)
    shown = capsys.readouterr().out
    first = unknown.result.change.pairs[0]
    assert f"{number(first.commutator_ratio_a)} → {number(first.commutator_ratio_b)}" in shown
    assert "not known" in shown
    assert "C in A → B" in shown
    assert "ρ and C of pairs" in unknown.to_html()


def test_of_many_pairs_those_that_changed_most_are_kept() -> None:
    a = _perceptron(deeper=24)
    b = _tuned(a)
    change = flagscope.compare(a, b).result.change
    assert change is not None
    assert change.pairs_compared == 26
    assert len(change.pairs) == 20
    sizes = [
        max(
            abs((pair.gram_correlation_b or 0) - (pair.gram_correlation_a or 0)),
            abs(math.log((pair.commutator_ratio_b or 1) / (pair.commutator_ratio_a or 1))),
        )
        for pair in change.pairs
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_parts_that_were_not_asked_for_are_not_computed(model: State) -> None:
    report = flagscope.compare(model, noisy(model, layer=1), only="content")
    assert report.result.change is None
    assert report.result.change_status == "it was not asked for"
    with pytest.raises(InputError, match="only is 'all'"):
        flagscope.compare(model, model, only="all")  # pyright: ignore[reportArgumentType]


def test_all_parts_say_how_far_they_are(model: State, config: dict[str, Any]) -> None:
    seen: list[tuple[int, int, str]] = []
    flagscope.compare(
        model, noisy(model, layer=1), config=config, only=("content", "change", "diagnostics"),
        progress=lambda done, total, name: seen.append((done, total, name)),
    )  # fmt: skip
    ends = [(done, total) for done, total, _ in seen if done == total]
    assert len(ends) == 4  # the content, a scan of each, the change
    assert ends[0] == (len(model), len(model))
    assert {name for _, _, name in seen[: len(model)]} == set(model)
    assert all(name for _, _, name in seen)
