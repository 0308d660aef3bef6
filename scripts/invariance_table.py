"""Which numbers of a scan move under which function-preserving change: measured, as Markdown.

    python scripts/invariance_table.py [--update docs/invariance.md]

Trained networks are scanned before and after: the bundled GPT, a small Llama and a small Qwen3
that are trained here on the licence's text, and ResNet-20 where its file is given.
Each column applies one random change at every place of its kind at once. The exit code is 1 where
a number labelled functional moves beyond round-off, or one labelled gauge never does.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import flagscope  # noqa: E402
from arch.contract import Float64  # noqa: E402 - lifts the float32 casts of stock forwards
from flagscope.arch import PairGroup  # noqa: E402
from flagscope.demo import final  # noqa: E402
from flagscope.diagnose import labels  # noqa: E402
from flagscope.lab.rank_rule import LAB_RULE  # noqa: E402
from flagscope.records import PairRecord, ScanResult  # noqa: E402
from flagscope.reparameterize import (  # noqa: E402
    Change,
    Symmetry,
    applicable,
    apply,
    balancing_change,
    random_change,
)

State = dict[str, Tensor]
# Round-off of the scan: eigenproblems of Grams in float64, with the condition of the maps.
ROUND_OFF = 1e-7
MOVED = 1e-3
HEAD_OBSERVABLES = ("overlap_ratio", "shared_directions")
# Generic trained pairs share no direction exactly: the planted pair shows that these move.
PLANTED = ("intersection_exact",)
SKIPPED = ("profile", "incidence")


@dataclass
class Model:
    """A trained network in float64: weights, config, and its outputs for other weights."""

    title: str
    state: State
    config: Mapping[str, Any] | None
    run: Callable[[State], Tensor]

    def scan(self, state: State) -> ScanResult:
        return flagscope.scan(state, config=self.config, rank=LAB_RULE).result

    def moved(self, state: State) -> float:
        before, after = self.run(self.state), self.run(state)
        return float((after - before).abs().max() / before.abs().max())


def transformer(model: nn.Module, title: str, tokens: Tensor) -> Model:
    model = model.double().eval()

    def run(state: State) -> Tensor:
        with torch.no_grad(), Float64():
            return torch.func.functional_call(
                model, state, kwargs={"input_ids": tokens}, tie_weights=False
            )[0]

    return Model(title, dict(model.state_dict()), model.config.to_dict(), run)


def demo() -> Model:
    import transformers

    path = final()
    config = transformers.GPT2Config(
        **json.loads((path.parent / "config.json").read_text()), attn_implementation="eager"
    )
    model = transformers.GPT2LMHeadModel(config)
    stored = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    model.transformer.load_state_dict({k: v for k, v in stored.items() if "lm_head" not in k})
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(config.vocab_size, (2, 64), generator=generator)
    return transformer(model, "demo GPT", tokens)


SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 128, "max_position_embeddings": 64,
    "hidden_act": "silu", "attn_implementation": "eager",
}  # fmt: skip


def small_llama(steps: int) -> Model:
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    return trained(model, "small Llama", steps)


def small_qwen3(steps: int) -> Model:
    """With norms on queries and keys, whose ε is small enough to be lost in round-off."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen3Config(**SMALL, head_dim=16, rms_norm_eps=1e-20)
    return trained(transformers.Qwen3ForCausalLM(config), "small Qwen3", steps)


def trained(model: Any, title: str, steps: int) -> Model:
    text = torch.tensor(list((ROOT / "LICENSE").read_bytes())).clamp(max=127)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        start = torch.randint(len(text) - 64, (16,))
        batch = text[start[:, None] + torch.arange(64)]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"{title}: loss {float(loss.detach()):.2f} after {steps} steps", file=sys.stderr)
    return transformer(model, title, text[:128].reshape(2, 64))


def resnet20(path: Path) -> Model:
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = {k.removeprefix("module."): v for k, v in stored.items()}
    state = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()

    def norm(s: State, name: str, x: Tensor) -> Tensor:
        mean, variance = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        return functional.batch_norm(x, mean, variance, s[f"{name}.weight"], s[f"{name}.bias"])

    def run(s: State) -> Tensor:
        x = norm(s, "bn1", functional.conv2d(image, s["conv1.weight"], padding=1)).relu()
        for stage in (1, 2, 3):
            for block in range(3):
                at, step = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = functional.conv2d(x, s[f"{at}.conv1.weight"], stride=step, padding=1)
                y = norm(s, f"{at}.bn1", y).relu()
                y = norm(s, f"{at}.bn2", functional.conv2d(y, s[f"{at}.conv2.weight"], padding=1))
                more = (y.shape[1] - x.shape[1]) // 2
                x = functional.pad(x[..., ::step, ::step], (0, 0, 0, 0, more, more))
                x = (x + y).relu()
        return functional.linear(x.mean((2, 3)), s["linear.weight"], s["linear.bias"])

    return Model("ResNet-20", state, None, run)


@dataclass
class Column:
    """One change at every place of its kind; what moved by how much, and what it should do."""

    title: str
    label: dict[str, str]
    outputs: float
    moved: dict[str, float | None]


def numbers(record: Any, name: str) -> Tensor | None:
    value = getattr(record, name, None)
    if value is None:
        value = getattr(getattr(record, "functional", None), name, None)
    if value is None:
        return None
    values = value.top if hasattr(value, "top") else value
    return torch.tensor(values, dtype=torch.float64).flatten()


def movement(old: Tensor | None, new: Tensor | None) -> float | None:
    if old is None and new is None:
        return None
    if old is None or new is None or old.shape != new.shape:
        return float("inf")
    # relative to the number, or to one hundredth where it is nearly zero
    return float((old - new).abs().max() / old.abs().max().clamp(min=1e-2))


def column(
    title: str, model: Model, before: ScanResult, symmetries: list[Symmetry], seed: int,
    *, seen_at: Callable[[PairRecord], bool] | None = None,
) -> Column:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    changes = [random_change(one, generator=generator) for one in symmetries]
    state = apply(model.state, changes).state
    scan = model.scan(state)
    after = {one.name: one for one in scan.pairs}
    places = dict(renamed(changes))
    own = {member.name for one in symmetries if isinstance(one.group, PairGroup)
           for group in (one.group, *one.partners) for member in group.members}  # fmt: skip
    wanted = seen_at or (lambda one: not own or one.name in own)
    records = [one for one in before.pairs if wanted(one)]
    moved: dict[str, float | None] = {}
    label = labels(records[0].freedom)
    for name in label:
        if name not in SKIPPED:
            found = [movement(numbers(one, name),
                              numbers(after[places.get(one.name, one.name)], name))
                     for one in records]  # fmt: skip
            known = [one for one in found if one is not None]
            moved[name] = max(known) if known else None
    for name in HEAD_OBSERVABLES:  # spaces of heads in the stream: a head's own basis is no part
        found = [movement(numbers(one, name), numbers(other, name))
                 for one, other in zip(before.heads, scan.heads, strict=True)]  # fmt: skip
        moved[f"heads.{name}"] = max((one for one in found if one is not None), default=None)
        label |= {f"heads.{name}": "functional"}
    return Column(title, dict(label), model.moved(state), moved)


def renamed(changes: list[Change]) -> Iterator[tuple[str, str]]:
    """Where a head's pairs are found after heads have changed places."""
    for change in changes:
        if change.kind == "heads":
            for group in (change.symmetry.group, *change.symmetry.partners):
                names = {one.head: one.name for one in group.members}  # pyright: ignore
                for place, head in enumerate(change.values.tolist()):
                    yield names[head], names[place]


def chosen(model: Model, kind: str, place: str) -> list[Symmetry]:
    graph = flagscope.inspect(model.state, config=model.config).graph
    return [one for one in applicable(graph)
            if re.fullmatch(kind, one.kind) and re.search(place, one.name)]  # fmt: skip


def columns(models: dict[str, Model]) -> list[Column]:
    found = []
    plan = [
        ("GL, V-O", "demo", "gl", r"\.ov"),
        ("GL, Q-K", "demo", "gl", r"\.qk"),
        ("rotary, Q-K", "llama", "rotary", ""),
        ("scale, Q-K with norms", "qwen3", "(query|key) scale", ""),
        ("scaling, ReLU", "resnet", "scaling", ""),
        ("scaling, up of gated", "llama", "scaling", ""),
        ("permutation", "demo", "permutation", ""),
        ("heads", "llama", "heads", ""),
    ]
    for seed, (title, name, kind, place) in enumerate(plan):
        if name in models:
            model = models[name]
            before = model.scan(model.state)
            one = column(title, model, before, chosen(model, kind, place), seed)
            # permutations keep what they keep whatever else is free
            if kind in ("permutation", "heads"):
                one.label |= labels("permutation")
            found.append(one)
    if "llama" in models:
        found += stream_and_neighbour(models["llama"])
    return found


def stream_and_neighbour(llama: Model) -> list[Column]:
    stream = chosen(llama, "stream", "")
    fold = random_change(stream[0], generator=torch.Generator().manual_seed(20))
    folded = Model(llama.title, apply(llama.state, fold).state, llama.config, llama.run)
    before = folded.scan(folded.state)
    turn = column("stream, gains folded", folded, before, stream, 21)
    turn.label |= labels("none")
    beside = column(
        "scaling of up, seen at gate → down",
        llama,
        llama.scan(llama.state),
        chosen(llama, "scaling", ""),
        22,
        # not the residual pairs of gate, in which down of another block writes
        seen_at=lambda one: one.kind == "mlp" and one.name.endswith("mlp.gate"),
    )
    beside.label = {}  # a neighbour's freedom: no label speaks of it
    return [turn, beside]


def written(value: float | None) -> str:
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if value == float("inf"):
        return "other length"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if value >= MOVED else f"{value:.0e}".replace("e-0", "e-")


def main_table(found: list[Column]) -> tuple[list[str], list[str]]:
    titles, outputs = ([one.title for one in found], [f"*{written(one.outputs)}*" for one in found])
    rows = [
        f"| observable | {' | '.join(titles)} |",
        "|---" * (1 + len(found)) + "|",
        f"| *network's outputs* | {' | '.join(outputs)} |",
    ]
    wrong = [f"{one.title}: outputs moved by {one.outputs}" for one in found if one.outputs > 1e-11]
    for name in found[0].moved:
        cells = []
        for one in found:
            gauge = one.label.get(name) == "gauge"
            value = one.moved.get(name)
            cells.append(f"**{written(value)}**" if gauge else written(value))
            if one.label.get(name) == "functional" and (value or 0) > ROUND_OFF:
                wrong.append(f"{one.title}: {name} is called functional and moved by {value}")
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    for name in found[0].moved:
        gauges = [one.moved[name] for one in found if one.label.get(name) == "gauge"]
        seen = [value for value in gauges if value is not None]
        if seen and max(seen) < MOVED and name not in PLANTED:
            wrong.append(f"{name} is called gauge and never moved")
    return rows, wrong


def planted() -> tuple[list[str], list[str]]:
    """A pair of rank 8 in R^32 with six shared dimensions, under three kinds of g."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    frame = torch.linalg.qr(normal(32, 32)).Q
    # writes directions 0-7, reads 0-5 and 8-9: six shared, two written and never read
    w1, w2 = frame[:, :8] @ normal(8, 12), normal(9, 8) @ frame[:, [*range(6), 8, 9]].T
    rotation = torch.linalg.qr(normal(32, 32)).Q
    general = 1.5 * torch.eye(32, dtype=torch.float64) + normal(32, 32) / (2 * 32**0.5)
    rows = ["| | exact intersection | flag defect | kernel intersection | outputs |",
            "|---|---|---|---|---|"]  # fmt: skip
    counts: list[tuple[int | None, int | None]] = []
    state = {"0.weight": w1, "1.weight": w2}
    graph = flagscope.inspect(state, config={"activation": "linear"}).graph
    (symmetry,) = applicable(graph)
    cases = {"as planted": torch.eye(32), "orthogonal g": rotation, "general g": general}
    for title, g in cases.items():
        changed = apply(state, Change(symmetry, g)).state
        scan = flagscope.scan(changed, config={"activation": "linear"}, rank="numerical")
        one = scan.result.pairs[0]
        product = changed["1.weight"] @ changed["0.weight"]
        outputs = float((product - w2 @ w1).abs().max() / (w2 @ w1).abs().max())
        counts.append((one.intersection_exact, one.kernel_intersection))
        rows.append(f"| {title} | {one.intersection_exact} | {written(one.flag_defect)} | "
                    f"{one.kernel_intersection} | {written(outputs)} |")  # fmt: skip
    right = counts == [(6, 2), (6, 2), (0, 2)]
    return rows, [] if right else [f"planted intersections came out as {counts}"]


def balanced(model: Model) -> tuple[list[str], list[str]]:
    """Every Q-K and V-O pair in the gauge in which raw alignment is perfect."""
    symmetries = chosen(model, "gl", "")
    changes = [balancing_change(one, model.state) for one in symmetries]
    state = apply(model.state, changes).state
    outputs = model.moved(state)
    rows = ["| | C | ρ | imbalance | outputs |", "|---|---|---|---|---|"]
    wrong = [] if outputs < 1e-11 else [f"balancing moved the outputs by {outputs}"]
    for title, weights in (("as trained", model.state), ("balanced", state)):
        pairs = [one for one in model.scan(weights).pairs if one.kind in ("qk", "ov")]
        cells = []
        for name in ("commutator_ratio", "gram_correlation", "imbalance"):
            values = torch.tensor([getattr(one, name) for one in pairs]).double()
            cells.append(f"{written_signed(values.min())} … {written_signed(values.max())}")
        moved = "" if weights is model.state else written(outputs)
        rows.append(f"| {title} | {' | '.join(cells)} | {moved} |")
        if weights is state and not all(one.gram_correlation > 1 - 1e-9 for one in pairs):
            wrong.append("balanced pairs are not perfectly aligned")
    return rows, wrong


def written_signed(value: Tensor) -> str:
    number = float(value)
    sign = "−" if number < 0 else ""
    near = abs(abs(number) - 1) < 1e-9
    return sign + ("1" if near else written(abs(number)))


def update(path: Path, parts: dict[str, list[str]]) -> None:
    text = path.read_text(encoding="utf-8")
    for name, rows in parts.items():
        start, end = f"<!-- {name} begins -->", f"<!-- {name} ends -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{chr(10).join(rows)}\n\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def main() -> int:
    default = ROOT.parent / "shared/data/resnet20-cifar10/resnet20-12fca82f.th"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resnet", type=Path, default=default, help="file of ResNet-20")
    parser.add_argument("--steps", type=int, default=300, help="training steps of the small Llama")
    parser.add_argument("--update", type=Path, help="page whose tables are to be replaced")
    arguments = parser.parse_args()
    if arguments.update and not arguments.resnet.exists():
        parser.error(f"there is no {arguments.resnet}, and the page has a column of it: --resnet F")
    models = {"demo": demo(), "llama": small_llama(arguments.steps),
              "qwen3": small_qwen3(arguments.steps)}  # fmt: skip
    if arguments.resnet.exists():
        models["resnet"] = resnet20(arguments.resnet)
    rows, wrong = main_table(columns(models))
    perfect, more = balanced(models["demo"])
    known, less = planted()
    parts = {"table": rows, "planted": known, "balanced": perfect}
    for one in parts.values():
        print("\n".join(one), end="\n\n")
    if arguments.update:
        update(arguments.update, parts)
    failures = [*wrong, *more, *less]
    for one in failures:
        print(one, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
