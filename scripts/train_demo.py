"""Train the small GPT that `flagscope demo` scans.

    pip install -e ".[test]"
    python scripts/train_demo.py

The text is what every CPython ships for its own `help()`, `pydoc_data.topics`. It differs from one
Python version to the next, so the script says loudly when it is not the text of the bundled
checkpoints. Equal text, seed, thread count and library versions on one kind of processor give
equal weights; elsewhere the order of floating-point sums differs, and the weights with it, though
the losses come out alike.

Written beside the checkpoints: `config.json` (GPT-2), `training.json` (everything recorded) and
`README.md` (the same, to read).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
import textwrap
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from flagscope.lab.text import PYDOC, Corpus, pydoc_corpus

FOLDER = Path(__file__).resolve().parents[1] / "src" / "flagscope" / "demo"
TEXT_SHA256 = "71f2ff5d99bdc1f9c48c5c2353ad138201c5ca1c377e0226857ef8fa89b8bcee"
TEXT_PYTHON = "3.11.7"
CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "n_layer": 4,
    "n_head": 6,
    "n_embd": 96,
    "n_inner": None,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "attn_pdrop": 0.0,  # CPU attention kernels are fused only without it
    "bos_token_id": None,
    "eos_token_id": None,
}


@torch.no_grad()
def mean_loss(model: GPT2LMHeadModel, text: torch.Tensor) -> float:
    """Mean loss in nats per character over consecutive windows of the model's context length."""
    model.eval()
    width = model.config.n_positions
    inputs, targets = text[:-1], text[1:]
    whole = len(inputs) // width * width
    batches = list(
        zip(
            inputs[:whole].view(-1, width).split(32),
            targets[:whole].view(-1, width).split(32),
            strict=True,
        )
    )
    if whole < len(inputs):
        batches.append((inputs[None, whole:], targets[None, whole:]))
    total = 0.0
    for window, answer in batches:
        logits = model(window).logits.double()
        total += float(
            functional.cross_entropy(logits.flatten(0, 1), answer.flatten(), reduction="sum")
        )
    return total / len(inputs)


def stored_state(model: GPT2LMHeadModel) -> dict[str, torch.Tensor]:
    """The weights as transformers saves them: the tied output embedding is not stored twice."""
    state = model.state_dict()
    return {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in state.items()
        if name != "lm_head.weight"
    }


def load(path: Path, config: GPT2Config) -> GPT2LMHeadModel:
    """The model of a stored checkpoint, widened to float32."""
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model = GPT2LMHeadModel(config)
    model.load_state_dict(state)
    return model


def learning_rate(step: int, chosen: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < chosen.warmup:
        return chosen.learning_rate * (step + 1) / chosen.warmup
    done = (step - chosen.warmup) / max(1, chosen.steps - chosen.warmup)
    return chosen.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def train(data: Corpus, config: GPT2Config, chosen: argparse.Namespace) -> list[Path]:
    """Run the training; write a checkpoint at step 0 and at steps/125, /25, /5 and steps."""
    torch.manual_seed(chosen.seed)
    model = GPT2LMHeadModel(config)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # biases and gains do not decay
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": chosen.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=chosen.learning_rate,
        betas=(0.9, 0.99),
    )
    wanted = {0} | {round(chosen.steps / 5**power) for power in range(4)}
    width = config.n_positions
    offsets = torch.arange(width + 1)
    generator = torch.Generator().manual_seed(chosen.seed)
    written, start = [], time.perf_counter()
    for step in range(chosen.steps + 1):
        if step in wanted:
            written.append(chosen.out / f"step-{step:06d}.safetensors")
            save_file(stored_state(model), written[-1], metadata={"format": "pt"})
            written[-1].chmod(0o644)  # safetensors makes files private, and a wheel keeps that
        if step == chosen.steps:
            break
        model.train()
        first = torch.randint(len(data.train) - width, (chosen.batch, 1), generator=generator)
        window = data.train[first + offsets]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, chosen)
        logits = model(window[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % chosen.report == 0 or step == chosen.steps - 1:
            held_out = mean_loss(model, data.validation)
            print(
                f"step {step:6d}  batch {loss.item():.3f}  held out {held_out:.4f}  "
                f"{time.perf_counter() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return written


def record(data: Corpus, config: GPT2Config, chosen: argparse.Namespace, files: list[Path]) -> dict:
    """Everything one needs to check or repeat the run; losses are those of the stored weights."""
    rows = []
    for path in files:
        model = load(path, config)
        rows.append(
            {
                "file": path.name,
                "step": int(path.stem.removeprefix("step-")),
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "train_loss": round(mean_loss(model, data.train), 5),
                "validation_loss": round(mean_loss(model, data.validation), 5),
            }
        )
    recipe = {name: value for name, value in vars(chosen).items() if name not in {"out", "report"}}
    changed = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in recipe.items()
        if value != getattr(options([]), name)
    ]
    return {
        "text": {
            "source": PYDOC,
            "python": platform.python_version(),
            "sha256": data.sha256,
            "characters": data.characters,
            "train_characters": len(data.train),
            "validation_characters": len(data.validation),
            "validation_topics": list(data.held_out),
        },
        "vocabulary": data.vocabulary,
        "unigram_entropy": round(data.unigram_entropy(), 5),
        "unigram_validation_loss": round(data.unigram_loss(), 5),
        "parameters": sum(p.numel() for p in load(files[-1], config).parameters()),
        "command": " ".join(["python scripts/train_demo.py", *changed]),
        "recipe": recipe,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "checkpoints": rows,
    }


def readme(facts: dict) -> str:
    """The README.md beside the checkpoints."""
    text, recipe, versions = facts["text"], facts["recipe"], facts["versions"]
    rows = "\n".join(
        f"| `{row['file']}` | {row['train_loss']:.3f} | {row['validation_loss']:.3f} "
        f"| {row['bytes']:,} |"
        for row in facts["checkpoints"]
    )
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in recipe.items())
    items = [
        f"Model: GPT-2 (`GPT2LMHeadModel` of transformers, tied embeddings), {CONFIG['n_layer']} "
        f"layers, {CONFIG['n_head']} heads, width {CONFIG['n_embd']}, context "
        f"{CONFIG['n_positions']} characters, vocabulary {len(facts['vocabulary'])}; "
        f"{facts['parameters']:,} parameters, stored as float16.",
        f"Text: `{text['source']}` of CPython {text['python']}, {text['characters']:,} characters. "
        "Joined in the order of its keys with one empty line between topics, its UTF-8 has the "
        f"sha256 `{text['sha256']}`. Other versions of Python ship other texts.",
        "Split: repeated paragraphs are dropped (many topics hold others word for word), then "
        f"{len(text['validation_topics'])} whole topics are held out: "
        f"{text['train_characters']:,} characters to train on, {text['validation_characters']:,} "
        f"held out ({', '.join(text['validation_topics'])}).",
        f"Command: `{facts['command']}`",
        "Recipe: AdamW (0.9, 0.99), no decay of biases and gains, linear warm-up, cosine to a "
        f"tenth, gradient norm clipped at 1, {settings}.",
        f"Made with torch {versions['torch']} and transformers {versions['transformers']}, on a "
        "CPU.",
    ]
    listed = "\n".join(
        textwrap.fill(
            item, 100, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
        for item in items
    )
    return f"""# The bundled model

Five checkpoints of one training of a small character model, from its initialisation to the end;
`flagscope demo` scans the last. `scripts/train_demo.py` makes this whole folder except the Python.

{listed}

Losses in nats per character, of the weights as stored, over the whole of each part in windows of
{CONFIG["n_positions"]} characters. The unigram entropy of the training characters is
**{facts["unigram_entropy"]:.3f}**; their frequencies give a loss of \
{facts["unigram_validation_loss"]:.3f} on the held-out text.

| file | training text | held-out text | bytes |
|---|---|---|---|
{rows}

`config.json` belongs to all five. `training.json` holds the above for programs, with the vocabulary
(token i is its i-th character) and the sha256 of each file.

The text is part of the documentation of Python, copyright Python Software Foundation, under the
PSF License Version 2 (https://docs.python.org/3/license.html). It is not included here. The weights
are under flagscope's licence, Apache-2.0.
"""


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; its defaults are the settings of the bundled run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=int, default=500, help="steps between progress lines")
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser.parse_args(arguments)


def main() -> None:
    """Train, record, describe."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    data = pydoc_corpus()
    if data.sha256 != TEXT_SHA256:
        print(
            f"WARNING: Python {platform.python_version()} ships another text than Python "
            f"{TEXT_PYTHON}, which the bundled checkpoints were trained on (sha256 {data.sha256}, "
            f"not {TEXT_SHA256}). Weights and losses will differ from the recorded ones.",
            file=sys.stderr,
        )
    chosen.out.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | {
        "vocab_size": len(data.vocabulary),
        "resid_pdrop": chosen.dropout,
        "embd_pdrop": chosen.dropout,
    }
    config = GPT2Config(**settings)
    files = train(data, config, chosen)
    facts = record(data, config, chosen, files)
    (chosen.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (chosen.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (chosen.out / "README.md").write_text(readme(facts))
    print(f"wrote {len(files)} checkpoints to {chosen.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
