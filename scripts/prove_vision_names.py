"""The mappings of ResNet, MLP-Mixer and ConvNeXt, proven on torchvision's and timm's own classes.

    python -m venv --system-site-packages vision
    vision/bin/pip install --no-deps torchvision timm
    vision/bin/python scripts/prove_vision_names.py

The tests prove the same on small modules with the same tensor names. An environment of its own,
since timm needs torchvision, whose only build here is for another torch: none of its compiled
operators is used, and what it says about those is passed over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from arch.contract import assert_proven, randomise  # noqa: E402
from flagscope.arch import build_graph  # noqa: E402


def without_operators() -> tuple[Any, Any]:
    """torchvision and timm, imported without torchvision's compiled operators."""
    register = torch.library.register_fake

    def passed_over(name: Any, *arguments: Any, **more: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return register(name, *arguments, **more)

    torch.library.register_fake = passed_over  # pyright: ignore[reportAttributeAccessIssue]
    import timm  # pyright: ignore[reportMissingImports]
    import torchvision  # pyright: ignore[reportMissingImports]

    torch.library.register_fake = register
    return torchvision, timm


def cases(torchvision: Any, timm: Any) -> dict[str, tuple[str, int, Callable[[], nn.Module]]]:
    """Family, image size and small model by name."""
    vision, resnet = torchvision.models.resnet, timm.models.resnet
    small = {"layers": [1, 1, 1, 1], "num_classes": 5}
    narrow = {**small, "channels": (16, 16, 24, 32)}
    widths = {"num_classes": 5, "depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20)}
    mixer = {"num_classes": 5, "img_size": 16, "patch_size": 8, "num_blocks": 2, "embed_dim": 24}
    squeezed = {"block_args": {"attn_layer": "se"}}
    convnext = timm.models.convnext.ConvNeXt
    return {
        "torchvision ResNet, basic":
            ("resnet", 32, lambda: vision.ResNet(vision.BasicBlock, **small)),
        "torchvision ResNet, bottleneck":
            ("resnet", 32, lambda: vision.ResNet(vision.Bottleneck, **small)),
        "timm ResNet, basic": ("resnet", 32, lambda: resnet.ResNet(resnet.BasicBlock, **narrow)),
        "timm ResNet, bottleneck":
            ("resnet", 32, lambda: resnet.ResNet(resnet.Bottleneck, **narrow)),
        "timm ResNet-D": ("resnet", 32, lambda: resnet.ResNet(
            resnet.Bottleneck, **narrow, stem_type="deep", avg_down=True)),
        "timm SE-ResNet":
            ("resnet", 32, lambda: resnet.ResNet(resnet.Bottleneck, **narrow, **squeezed)),
        "timm MLP-Mixer": ("mlp_mixer", 16, lambda: timm.models.mlp_mixer.MlpMixer(**mixer)),
        "timm ConvNeXt": ("convnext", 64, lambda: convnext(**widths)),
        "timm ConvNeXt, 1 × 1 convolutions":
            ("convnext", 64, lambda: convnext(**widths, conv_mlp=True)),
    }  # fmt: skip


def proven(family: str, size: int, make: Callable[[], nn.Module]) -> set[str]:
    """The changes that one model keeps its outputs under, on names and shapes alone."""
    module = randomise(make(), seed=4)
    state = dict(module.state_dict())
    graph = build_graph({name: tuple(value.shape) for name, value in state.items()})
    if graph.family != family:
        raise AssertionError(f"taken for {graph.family}")
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 3, size, size, generator=generator).double()

    def run(changed: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return torch.func.functional_call(module, changed, image)

    return assert_proven(graph, state, run, tolerance=1e-11, each=False)


def main() -> int:
    """Prove every case; the exit code is 1 where one is not proven."""
    torchvision, timm = without_operators()
    print(f"torchvision {torchvision.__version__}, timm {timm.__version__}")
    failed = 0
    for name, case in cases(torchvision, timm).items():
        try:
            print(f"{name}: {', '.join(sorted(proven(*case)))}")
        except Exception as error:  # each is told, and the others still run
            failed += 1
            print(f"{name}: not proven: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
