"""Motion of products under random updates of their maps, and in a training that goes on.

python -m benchmarks.product_motion              made series: p-values, ratios, claims
python -m benchmarks.product_motion trained      the bundled model, trained for 80 more steps
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import flagscope
from flagscope.demo import checkpoints
from flagscope.lab.text import pydoc_corpus

State = dict[str, Tensor]
# Dimension, heads, their size, series, spread of the entries of an update, in turn by map.
CASES = (
    (32, 4, 8, 60, (0.02,)),
    (64, 4, 16, 40, (0.005, 0.02)),
    (64, 2, 16, 60, (0.08,)),
    (192, 2, 48, 40, (0.02, 0.01)),
)
_SAVED = (0, 5, 10, 15, 20, 30, 40, 60, 80)
_AT = "encoder.layer.0."


def config(dimension: int, heads: int) -> dict[str, object]:
    """A BERT of one layer."""
    return {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": dimension,
        "num_attention_heads": heads, "num_hidden_layers": 1, "intermediate_size": 16,
        "vocab_size": 20, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu",
    }  # fmt: skip


def start(dimension: int, heads: int, size: int, draw: torch.Generator) -> State:
    """Products of heads with four directions that have gaps, in random bases between the maps."""
    sizes = torch.tensor([16.0, 11.0, 7.5, 5.0] + [1.0] * (size - 4)).sqrt()

    def pair() -> tuple[Tensor, Tensor]:
        basis = torch.linalg.qr(torch.randn(heads, size, size, generator=draw))[0]
        both = torch.randn(2, heads, size, dimension, generator=draw) * sizes[:, None]
        return tuple((basis @ one).reshape(heads * size, dimension) for one in both)  # type: ignore

    (query, key), (value, out) = pair(), pair()
    return {
        f"{_AT}attention.self.query.weight": query,
        f"{_AT}attention.self.key.weight": key,
        f"{_AT}attention.self.value.weight": value,
        f"{_AT}attention.output.dense.weight": out.mT.contiguous(),
        f"{_AT}intermediate.dense.weight": torch.randn(16, dimension, generator=draw),
        f"{_AT}output.dense.weight": torch.randn(dimension, 16, generator=draw),
        "embeddings.word_embeddings.weight": torch.randn(20, dimension, generator=draw),
    }


def series(case: tuple[int, int, int, int, tuple[float, ...]], seed: int) -> flagscope.SeriesReport:
    """Two steps, apart by independent entries in every map."""
    dimension, heads, size, _, spreads = case
    draw = torch.Generator().manual_seed(seed)
    state = start(dimension, heads, size, draw)
    with TemporaryDirectory() as folder:
        for step in range(2):
            write(Path(folder) / f"checkpoint-{step}", state, config(dimension, heads))
            state = {
                name: w + spreads[count % len(spreads)] * torch.randn(w.shape, generator=draw)
                for count, (name, w) in enumerate(state.items())
            }
        return flagscope.track(folder, kinds=("qk", "ov"))


def write(folder: Path, state: State, settings: object) -> None:
    """Save one step."""
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))


def products(report: flagscope.SeriesReport) -> pandas.DataFrame:
    """Rows of products that were compared with a random update."""
    frame = report.motion
    return frame[(frame["part"] == "product") & frame["change"].notna()]


def made() -> None:
    """p-values, observed over expected, claims of series in which all is random."""
    for case in CASES:
        p, more, ratios, changes, claims, every = [], [], [], [], 0, 0
        for seed in range(case[3]):
            rows = products(series(case, seed))
            every += len(rows)
            changes += (rows["change"] / rows["change_random"]).tolist()
            rows = rows[rows["turn_log10_p"].notna()]
            p += (10 ** rows["turn_log10_p"]).tolist()
            more += (10 ** rows["turn_log10_p_more"]).tolist()
            ratios += rows["turn_ratio"].tolist()
            claims += bool((rows["turn_p_adjusted"] < 0.05).any())
        print(
            f"{case}: {len(p)} of {every} turns tested, p < .05 in {np.mean(np.less(p, 0.05)):.1%},"
            f" p of turning more < .05 in {np.mean(np.less(more, 0.05)):.1%}, observed over"
            f" expected {np.mean(ratios):.3f} ± {np.std(ratios) / len(ratios) ** 0.5:.3f}, change"
            f" over random {np.mean(changes):.3f} (sd {np.std(changes):.3f}), claims {claims}"
        )


def trained() -> None:
    """The bundled model at a tenth of its first learning rate, AdamW, 80 steps."""
    from transformers import GPT2Config, GPT2LMHeadModel

    last = Path(checkpoints()[-1])
    settings = json.loads((last.parent / "config.json").read_text())
    model = GPT2LMHeadModel(GPT2Config(**settings))
    state = {name: w.float() for name, w in load_file(last).items()}
    model.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]})
    groups = [
        {"params": [w for w in model.parameters() if w.ndim >= 2], "weight_decay": 0.1},
        {"params": [w for w in model.parameters() if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=4e-4, betas=(0.9, 0.99))
    text, draw = pydoc_corpus().train, torch.Generator().manual_seed(1)
    with TemporaryDirectory() as folder:
        for step in range(_SAVED[-1] + 1):
            if step in _SAVED:
                now = model.state_dict()
                now.pop("lm_head.weight")
                write(Path(folder) / f"checkpoint-{step}", now, settings)
            places = torch.randint(0, len(text) - 129, (16, 1), generator=draw)
            window = text[places + torch.arange(129)]
            logits = model(window[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        rows = products(flagscope.track(folder, kinds=("qk", "ov")))
    for (number, role), part in rows.groupby(["number", "role"]):
        tested = part[part["turn_ratio"].notna()]
        shares = part["change"] / part["change_random"]
        print(
            f"step {number}, {role}: change {median(part['relative_change']):.3f} of the norm,"
            f" {median(shares):.2f} ({shares.min():.2f} to {shares.max():.2f}) times random;"
            f" {len(tested)} of {len(part)} sides tested, turned"
            f" {median(tested['turn_ratio']):.2f} times, more than random"
            f" in {(tested['turn_p_adjusted'] < 0.05).sum()}"
        )


if __name__ == "__main__":
    trained() if sys.argv[1:] == ["trained"] else made()
