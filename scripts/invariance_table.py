"""Which numbers of a scan move under which function-preserving change: measured, as Markdown.

    python scripts/invariance_table.py [--update docs/invariance.md]

Trained networks are scanned before and after: the bundled GPT, a small Llama and a small Qwen3
that are trained here on the licence's text, and ResNet-20 where its file is given.
Each column applies one random change at every place of its kind at once. The exit code is 1 where
a number labelled functional moves beyond round-off, or one labelled gauge never does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from arch.contract import Float64  # noqa: E402 - lifts the float32 casts of stock forwards
from flagscope.diagnose import labels  # noqa: E402
from flagscope.lab.experiments.invariance.rewriting import (  # noqa: E402
    Rewritable,
    State,
    changed_pairs,
    demo_model,
    movement,
    random_changes,
)
from flagscope.records import PairRecord, ScanResult  # noqa: E402
from flagscope.reparameterize import (  # noqa: E402
    Change,
    Symmetry,
    apply,
    balancing_change,
    random_change,
)

# Round-off of the scan: eigenproblems of Grams in float64, with the condition of the maps.
ROUND_OFF = 1e-7
MOVED = 1e-3
HEAD_OBSERVABLES = ("overlap_ratio", "shared_directions")
# Generic trained pairs share no direction exactly: the planted pair shows that these move.
PLANTED = ("intersection_exact",)
SKIPPED = ("profile", "incidence")


def transformer(model: nn.Module, tokens: Tensor) -> Rewritable:
    """A network of transformers in float64, with its stock forward."""
    model = model.double().eval()

    def run(state: State) -> Tensor:
        with torch.no_grad(), Float64():
            return torch.func.functional_call(
                model, state, kwargs={"input_ids": tokens}, tie_weights=False
            )[0]

    return Rewritable(dict(model.state_dict()), model.config.to_dict(), run)


SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 128, "max_position_embeddings": 64,
    "hidden_act": "silu", "attn_implementation": "eager",
}  # fmt: skip


def small_llama(steps: int) -> Rewritable:
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    return trained(model, "small Llama", steps)


def small_qwen3(steps: int) -> Rewritable:
    """With norms on queries and keys, whose ε is small enough to be lost in round-off."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen3Config(**SMALL, head_dim=16, rms_norm_eps=1e-20)
    return trained(transformers.Qwen3ForCausalLM(config), "small Qwen3", steps)


def trained(model: Any, title: str, steps: int) -> Rewritable:
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
    return transformer(model, text[:128].reshape(2, 64))


def resnet20(path: Path) -> Rewritable:
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

    return Rewritable(state, None, run)


@dataclass
class Column:
    """One change at every place of its kind; what moved by how much, and what it should do."""

    title: str
    label: dict[str, str]
    outputs: float
    moved: dict[str, float | None]


def measured_column(
    title: str, model: Rewritable, before: ScanResult, symmetries: list[Symmetry], seed: int,
    *, seen_at: Callable[[PairRecord], bool] | None = None,
) -> Column:  # fmt: skip
    changes = random_changes(symmetries, seed=seed)
    state, outputs = model.rewritten(changes)
    after = model.scan(state)
    pairs = {pair.name: pair for pair in after.pairs}
    places = dict(renamed(changes))
    own = changed_pairs(changes)
    seen = seen_at or (lambda pair: not own or pair.name in own)
    compared = [(pair, pairs[places.get(pair.name, pair.name)])
                for pair in before.pairs if seen(pair)]  # fmt: skip
    label = labels(compared[0][0].freedom)
    moved = {name: furthest(compared, name) for name in label if name not in SKIPPED}
    # spaces of heads in the stream: a head's own basis is no part
    heads = list(zip(before.heads, after.heads, strict=True))
    for name in HEAD_OBSERVABLES:
        moved[f"heads.{name}"] = furthest(heads, name)
        label |= {f"heads.{name}": "functional"}
    return Column(title, dict(label), outputs, moved)


def furthest(compared: list[tuple[Any, Any]], name: str) -> float | None:
    """The largest movement of an observable over records, None where it is defined in none."""
    moved = [movement(old, new, name) for old, new in compared]
    return max((value for value in moved if value is not None), default=None)


def renamed(changes: list[Change]) -> Iterator[tuple[str, str]]:
    """Where a head's pairs are found after heads have changed places."""
    for change in changes:
        if change.kind == "heads":
            for group in (change.symmetry.group, *change.symmetry.partners):
                names = {member.head: member.name for member in group.members}  # pyright: ignore
                for place, head in enumerate(change.values.tolist()):
                    yield names[head], names[place]


def columns(models: dict[str, Rewritable]) -> list[Column]:
    measured = []
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
            result = measured_column(title, model, before, model.places(kind, place), seed)
            # permutations keep what they keep whatever else is free
            if kind in ("permutation", "heads"):
                result.label |= labels("permutation")
            measured.append(result)
    if "llama" in models:
        measured += stream_and_neighbour(models["llama"])
    return measured


def stream_and_neighbour(llama: Rewritable) -> list[Column]:
    stream = llama.places("stream")
    fold = random_change(stream[0], generator=torch.Generator().manual_seed(20))
    folded = replace(llama, state=apply(llama.state, fold).state)
    before = folded.scan(folded.state)
    turn = measured_column("stream, gains folded", folded, before, stream, 21)
    turn.label |= labels("none")
    neighbour = measured_column(
        "scaling of up, seen at gate → down",
        llama,
        llama.scan(llama.state),
        llama.places("scaling"),
        22,
        # not the residual pairs of gate, in which down of another block writes
        seen_at=lambda pair: pair.kind == "mlp" and pair.name.endswith("mlp.gate"),
    )
    neighbour.label = {}  # a neighbour's freedom: no label speaks of it
    return [turn, neighbour]


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


def main_table(measured: list[Column]) -> tuple[list[str], list[str]]:
    titles = [column.title for column in measured]
    outputs = [f"*{written(column.outputs)}*" for column in measured]
    rows = [
        f"| observable | {' | '.join(titles)} |",
        "|---" * (1 + len(measured)) + "|",
        f"| *network's outputs* | {' | '.join(outputs)} |",
    ]
    wrong = [f"{column.title}: outputs moved by {column.outputs}"
             for column in measured if column.outputs > 1e-11]  # fmt: skip
    for name in measured[0].moved:
        cells = []
        for column in measured:
            gauge = column.label.get(name) == "gauge"
            value = column.moved.get(name)
            cells.append(f"**{written(value)}**" if gauge else written(value))
            if column.label.get(name) == "functional" and (value or 0) > ROUND_OFF:
                wrong.append(f"{column.title}: {name} is called functional and moved by {value}")
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    for name in measured[0].moved:
        gauges = [column.moved[name] for column in measured if column.label.get(name) == "gauge"]
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
    model = Rewritable({"0.weight": w1, "1.weight": w2}, {"activation": "linear"},
                       lambda state: state["1.weight"] @ state["0.weight"],
                       rank="numerical")  # fmt: skip
    (symmetry,) = model.places("gl")
    cases = {"as planted": torch.eye(32), "orthogonal g": rotation, "general g": general}
    for title, g in cases.items():
        state, outputs = model.rewritten([Change(symmetry, g)])
        pair = model.scan(state).pairs[0]
        counts.append((pair.intersection_exact, pair.kernel_intersection))
        rows.append(f"| {title} | {pair.intersection_exact} | {written(pair.flag_defect)} | "
                    f"{pair.kernel_intersection} | {written(outputs)} |")  # fmt: skip
    right = counts == [(6, 2), (6, 2), (0, 2)]
    return rows, [] if right else [f"planted intersections came out as {counts}"]


def balanced(model: Rewritable) -> tuple[list[str], list[str]]:
    """Every Q-K and V-O pair in the gauge in which raw alignment is perfect."""
    changes = [balancing_change(symmetry, model.state) for symmetry in model.places("gl")]
    state, outputs = model.rewritten(changes)
    rows = ["| | C | ρ | imbalance | outputs |", "|---|---|---|---|---|"]
    wrong = [] if outputs < 1e-11 else [f"balancing moved the outputs by {outputs}"]
    for title, weights in (("as trained", model.state), ("balanced", state)):
        pairs = [pair for pair in model.scan(weights).pairs if pair.kind in ("qk", "ov")]
        cells = []
        for name in ("commutator_ratio", "gram_correlation", "imbalance"):
            values = torch.tensor([getattr(pair, name) for pair in pairs]).double()
            cells.append(f"{written_signed(values.min())} … {written_signed(values.max())}")
        moved = "" if weights is model.state else written(outputs)
        rows.append(f"| {title} | {' | '.join(cells)} | {moved} |")
        if weights is state and not all(pair.gram_correlation > 1 - 1e-9 for pair in pairs):
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
    models = {"demo": demo_model(), "llama": small_llama(arguments.steps),
              "qwen3": small_qwen3(arguments.steps)}  # fmt: skip
    if arguments.resnet.exists():
        models["resnet"] = resnet20(arguments.resnet)
    rows, wrong = main_table(columns(models))
    perfect, more = balanced(models["demo"])
    known, less = planted()
    parts = {"table": rows, "planted": known, "balanced": perfect}
    for lines in parts.values():
        print("\n".join(lines), end="\n\n")
    if arguments.update:
        update(arguments.update, parts)
    failures = [*wrong, *more, *less]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
