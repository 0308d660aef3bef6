"""Convolutional networks of known structure, as bare state dicts (see `arch.networks`)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from arch.networks import Maker, Network


@dataclass
class _Conv:
    """A convolution as it was made: its matrix as writer and reader, None where it is grouped."""

    name: str
    write: Tensor | None
    read: Tensor | None
    norm: str | None = None


def conv_net(seed: int) -> Network:
    """Convolutions of every kind in sequence, with norms, and often linear maps at the end."""
    make = Maker(seed)
    pick = make.choice
    style = pick.choice(("features", "conv_bn", "conv_norm", "blocks", "pairs", "named_bn"))
    count = pick.randint(3, 6)
    norms, bias = pick.random() < 0.7, pick.random() < 0.5
    kinds = ["plain"] + [
        pick.choices(("plain", "depthwise", "grouped", "transposed", "strided"),
                     (6, 1, 1, 1, 2))[0] for _ in range(count - 1)
    ]  # fmt: skip
    net = Network(f"cnn, {style}")
    channels = pick.choice((3, 3, 3, 4, 4, 4, 2, 1))
    made: list[_Conv] = []
    for at, kind in enumerate(kinds):
        name, norm = _conv_names(style, at, norms=norms)
        out = pick.choice([c for c in (8, 12, 16, 24) if c != channels] if kind == "transposed"
                          else (8, 12, 16, 24))  # fmt: skip
        groups = {"depthwise": channels, "grouped": 2 if channels % 2 == 0 else 1}.get(kind, 1)
        out = channels if kind == "depthwise" else out
        size = pick.choice((2, 4)) if kind == "transposed" else pick.choice((1, 3, 3, 5))
        if kind == "transposed":
            w = make.weights(channels, out, size, size)
            dense = w.transpose(0, 1)
        else:
            w = make.weights(out, channels // groups, size, size)
            dense = w
        net.state[f"{name}.weight"] = w
        if bias or kind == "transposed":
            net.state[f"{name}.bias"] = make.weights(out)
        one = _Conv(name, None, None)
        if groups == 1:
            one.write = dense.reshape(out, -1)
            one.read = dense.permute(0, 2, 3, 1).reshape(-1, channels)
        if norm:
            make.norm(net, norm, out, batch=True)
            one.norm = norm
        made.append(one)
        channels = out
    head = pick.choice((None, "flat", "pooled", "two"))
    if head is not None and style != "pairs":
        made += _conv_head(make, net, style, head, channels)
    for one, two in pairwise(made):
        if one.write is not None and two.read is not None:
            net.add(f"{one.name}.weight", f"{two.name}.weight", one.write, two.read)
            if one.norm:
                net.folds.add(one.norm)
    return net


def _conv_names(style: str, at: int, *, norms: bool) -> tuple[str, str | None]:
    step = 3 if norms else 2
    name, norm = {
        "features": (f"features.{step * at}", f"features.{step * at + 1}"),
        "conv_bn": (f"conv{at + 1}", f"bn{at + 1}"),
        "conv_norm": (f"body.conv{at + 1}", f"body.norm{at + 1}"),
        "blocks": (f"blocks.{at}.conv", f"blocks.{at}.bn"),
        "pairs": (f"layers.{at}.0", f"layers.{at}.1"),
        "named_bn": (f"net.conv_{at}", f"net.bn_{at}"),
    }[style]
    return name, norm if norms else None


def _conv_head(make: Maker, net: Network, style: str, head: str, channels: int) -> list[_Conv]:
    prefix = {"features": "classifier.", "blocks": "head."}.get(style, "")
    prefix = {"conv_norm": "body.", "named_bn": "net."}.get(style, prefix)
    first, second = (f"{prefix}0", f"{prefix}2") if prefix in ("classifier.", "head.") else (
        f"{prefix}fc1", f"{prefix}fc2")  # fmt: skip
    places = 1 if head == "pooled" else make.choice.choice((4, 9))
    w = make.linear(net, first, 20, channels * places, bias=True)
    read = w.reshape(20, channels, places).permute(0, 2, 1).reshape(-1, channels)
    found = [_Conv(first, w, read)]
    if head == "two":
        v = make.linear(net, second, 5, 20, bias=True)
        found.append(_Conv(second, v, v))
    return found


CONV_MAKERS = ((conv_net, 600),)
