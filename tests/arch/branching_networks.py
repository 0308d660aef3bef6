"""Networks in which modules stand side by side, take turns, skip, or are summed.

Their names and widths are those for which a chain is the first guess, and often the wrong one. What
they hold is recorded as in `networks`, with the pairs whose neurons nothing else reads or adds to.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from arch.networks import Maker, Network


def _pair(net: Network, write: str, read: str, *, free: bool = True) -> None:
    """A true pair of two stored maps, plain in both places."""
    w1, w2 = net.state[f"{write}.weight"], net.state[f"{read}.weight"]
    out = w1.shape[0]
    net.add(f"{write}.weight", f"{read}.weight", w1.reshape(out, -1), _read(w2, out))
    if free and net.free is not None:
        net.free.add((f"{write}.weight", f"{read}.weight"))


def _read(w: Tensor, inputs: int) -> Tensor:
    """A plain map as a reader, behind a flattening where its columns are several for each input."""
    if w.ndim > 2:
        return w.movedim(1, -1).reshape(-1, inputs)
    return w.reshape(w.shape[0], inputs, -1).movedim(1, -1).reshape(-1, inputs)


def _conv(make: Maker, net: Network, name: str, out: int, inp: int, size: int = 3) -> None:
    net.state[f"{name}.weight"] = make.weights(out, inp, size, size)
    if make.choice.random() < 0.5:
        net.state[f"{name}.bias"] = make.weights(out)


def _chain(
    make: Maker, net: Network, names: list[str], widths: list[int], *, free: bool = True
) -> None:
    for name, (inp, out) in zip(names, pairwise(widths), strict=True):
        make.linear(net, name, out, inp, bias=make.choice.random() < 0.5)
    for write, read in pairwise(names):
        _pair(net, write, read, free=free)


_TWINS = (("user", "item"), ("text", "image"), ("teacher", "student"), ("left", "right"),
          ("actor", "critic"), ("query", "doc"), ("online", "target"), ("src", "tgt"),
          ("1", "2"), ("_a", "_b"), ("", "ema"), ("low", "high"), ("audio", "video"))  # fmt: skip


def towers(seed: int) -> Network:
    """Two nets of the same kind, each a chain, of which one never feeds the other."""
    make = Maker(seed)
    pick = make.choice
    whose = pick.choice(_TWINS)
    word = pick.choice(("encoder", "net", "mlp", "backbone", "layers", "tower", "fc", "features",
                        "decoder", "branch", "model", "trunk", "classifier"))  # fmt: skip
    behind, d = pick.random() < 0.3, pick.choice((8, 12))
    net = Network(f"towers, {whose[0]} {word}", free=set())
    numbers = pick.choice(((0, 2), (0, 2, 4), (0, 3)))
    for at, one in enumerate(whose):
        if one.isdigit() or one.startswith("_"):
            name = f"{word}{one}"
        else:
            name = f"{one}{pick.choice(('_', '.'))}{word}" if one else word
        start = d if at else pick.choice((d, 20))
        widths = [start, *(pick.choice((d, 16)) for _ in numbers[1:]), d]
        names = [f"{name}.{n}" for n in numbers]
        if behind and word == "backbone":
            widths += [d, 5]
            head = name.replace("backbone", "head")
            names += [f"{head}.0", f"{head}.2"]
        _chain(make, net, names, widths)
    return net


def joined_branches(seed: int) -> Network:
    """Convolutions that read one input, and a map that reads all that they write."""
    make = Maker(seed)
    pick = make.choice
    d, count = pick.choice((8, 12)), pick.choice((2, 3, 4))
    style = pick.choice(("TextCNN", "ASPP", "Inception", "kernels as keys", "pyramid"))
    net = Network(f"branches, {style}", free=set())
    if style == "TextCNN":
        net.state["embedding.weight"] = make.weights(30, d)
        word = pick.choice(("convs", "conv_layers", "filters", "conv1d_list"))
        for at in range(count):
            size = pick.choice((3 + at, 3 + 2 * at))
            net.state[f"{word}.{at}.weight"] = make.weights(d, d, size)
        make.linear(net, "fc", 2, count * d, bias=True)
    elif style == "ASPP":
        _conv(make, net, "backbone.0", d, 3)
        for at in range(count):
            _conv(make, net, f"aspp.convs.{at}", d, d, 1 if at == 0 else 3)
        extra = pick.choice((0, 1))
        _conv(make, net, "aspp.project", d, (count + extra) * d, 1)
    elif style == "Inception":
        for at in range(count):
            _conv(make, net, f"block.branch{at + 1}.0", d, d, 1)
            _conv(make, net, f"block.branch{at + 1}.1", d, d, 3)
            _pair(net, f"block.branch{at + 1}.0", f"block.branch{at + 1}.1")
        _conv(make, net, "head", 5, count * d, 1)
    elif style == "kernels as keys":
        for size in (1, 3, 5, 7)[:count]:
            _conv(make, net, f"convs.{size}", d, d, size)
    else:
        word = pick.choice(("scale_proj", "pool", "psp", "rates"))
        for at in range(max(count, 3)):
            make.linear(net, f"{word}.{2 ** (at + pick.choice((0, 1)) if at else 1)}", d, d,
                        bias=False)  # fmt: skip
    return net


def u_net(seed: int) -> Network:
    """An encoder, a decoder of transposed convolutions, and skips that are put side by side."""
    make = Maker(seed)
    pick = make.choice
    style = pick.choice(("enc1", "lists", "encoder1", "down.0"))
    encoder, up, decoder = {
        "enc1": ("enc{1}", "up{1}", "dec{1}"),
        "lists": ("encoder.{0}", "upconvs.{0}", "dec_blocks.{0}"),
        "encoder1": ("encoder{1}", "upconv{1}", "decoder{1}"),
        "down.0": ("downs.{0}", "ups.{0}", "up_convs.{0}"),
    }[style]
    net = Network(f"U-Net, {style}", free=set())
    widths = [8, 16, 32] if pick.random() < 0.7 else [8, 8, 8]
    channels, last = 3, None
    for at, width in enumerate(widths):
        base = encoder.format(at, at + 1)
        _conv(make, net, f"{base}.0", width, channels)
        _conv(make, net, f"{base}.2", width, width)
        _pair(net, f"{base}.0", f"{base}.2")
        if last is not None:
            _pair(net, last, f"{base}.0", free=False)  # the decoder reads it as well
        channels, last = width, f"{base}.2"
    for at, width in enumerate(reversed(widths[:-1])):
        name, base = up.format(at, at + 1), decoder.format(at, at + 1)
        net.state[f"{name}.weight"] = w = make.weights(channels, width, 2, 2)
        if pick.random() < 0.6:
            net.state[f"{name}.bias"] = make.weights(width)
        before = net.state[f"{last}.weight"].reshape(channels, -1)
        net.add(f"{last}.weight", f"{name}.weight", before, w.movedim(0, -1).reshape(-1, channels))
        _conv(make, net, f"{base}.0", width, 2 * width)
        _conv(make, net, f"{base}.2", width, width)
        _pair(net, f"{base}.0", f"{base}.2")
        channels, last = width, f"{base}.2"
    _conv(make, net, "out", 1, channels, 1)
    _pair(net, f"{last}", "out")
    return net


def turns(seed: int) -> Network:
    """Lists whose members take turns, or stand side by side layer for layer."""
    make = Maker(seed)
    pick = make.choice
    d, count = 8, pick.choice((2, 3, 4))
    style = pick.choice(("WaveNet", "HiFi-GAN", "queries and keys", "GNN", "alternating",
                         "linears and gates"))  # fmt: skip
    net = Network(f"turns, {style}", free=set())
    if style == "WaveNet":
        _conv(make, net, "start_conv", d, 2, 1)
        for at in range(count):
            for name in ("filter_convs", "gate_convs", "residual_convs"):
                _conv(make, net, f"{name}.{at}", d, d, 1 if name[0] == "r" else 3)
            _conv(make, net, f"skip_convs.{at}", 4 * d, d, 1)
    elif style == "HiFi-GAN":
        for block in range(3):
            for at in range(count):
                for which in (1, 2):
                    _conv(make, net, f"resblocks.{block}.convs{which}.{at}", d, d)
                _pair(net, f"resblocks.{block}.convs1.{at}", f"resblocks.{block}.convs2.{at}")
    elif style in ("queries and keys", "linears and gates"):
        both = ("q_layers", "k_layers") if style[0] == "q" else ("linear_layers", "gate_layers")
        for name in both:
            for at in range(count):
                make.linear(net, f"{name}.{at}", d, d, bias=True)
    else:
        names = pick.choice((("convs", "lins"), ("convs", "skips"), ("layers", "mixers"),
                             ("blocks", "downsamplers"), ("fcs", "linears")))  # fmt: skip
        for at in range(count):
            for name in names:
                make.linear(net, f"{name}.{at}", d, d, bias=True)
            if style == "alternating":
                _pair(net, f"{names[0]}.{at}", f"{names[1]}.{at}")
                if at:
                    _pair(net, f"{names[1]}.{at - 1}", f"{names[0]}.{at}")
    return net


def norm_lists(seed: int) -> Network:
    """Maps in one list and norms in another, behind them or in front; or one norm for all."""
    make = Maker(seed)
    pick = make.choice
    count, batch = pick.choice((2, 3, 4)), pick.random() < 0.5
    front, shared = pick.random() < 0.4, pick.choice((None, None, "norm", "bn", "ln", "scale"))
    maps, norms = pick.choice(
                              (("layers", "norms"), ("convs", "bns"), ("fcs", "norm_layers"),
                               ("conv", "bn"), ("hidden", "lns"), ("linears", "norms"))
    )  # fmt: skip
    if shared is None and maps == "linears":
        maps = "layers"
    widths = [pick.choice((8, 8, 12)) for _ in range(count + 1)]
    net = Network(f"norm lists, {maps} and {shared or norms}", free=set())
    names = [f"{maps}.{at}" for at in range(count)]
    _chain(make, net, names, widths)
    for at, (write, read) in enumerate(pairwise(names)):
        normed = widths[at + 1] == widths[1] if shared else front or not batch
        if normed and net.free is not None:
            net.free.discard((f"{write}.weight", f"{read}.weight"))
    if shared == "scale":
        net.state["scale"] = make.weights(widths[1])
    elif shared:
        make.norm(net, shared, widths[1], batch=batch)
    else:
        for at in range(count if front or pick.random() < 0.5 else count - 1):
            make.norm(net, f"{norms}.{at}", widths[at if front else at + 1], batch=batch)
            if batch and not front:
                net.folds.add(f"{norms}.{at}")
    return net


def residual_convolutions(seed: int) -> Network:
    """A stem with its norm behind it, and blocks of two convolutions with norms on either side."""
    make = Maker(seed)
    pick = make.choice
    front, d = pick.random() < 0.5, 8
    stem, word = pick.choice(("conv0", "stem", "conv1")), pick.choice(("blocks", "layers", "res"))
    norms = pick.random() < 0.8
    net = Network(f"residual convolutions, {'front' if front else 'behind'}", free=set())
    _conv(make, net, stem, d, 3)
    if norms and stem != "stem":
        make.norm(net, stem.replace("conv", "bn"), d, batch=True)
        net.folds.add(stem.replace("conv", "bn"))
    for at in range(pick.choice((1, 2, 3))):
        base = f"{word}.{at}"
        for n in (1, 2):
            if norms and front:
                make.norm(net, f"{base}.bn{n}", d, batch=True)
            _conv(make, net, f"{base}.conv{n}", d, d)
            if norms and not front:
                make.norm(net, f"{base}.bn{n}", d, batch=True)
        _pair(net, f"{base}.conv1", f"{base}.conv2", free=not norms or not front)
        if norms and not front:
            net.folds.add(f"{base}.bn1")
    _pair(net, stem, f"{word}.0.conv1", free=False)
    return net


def residual_maps(seed: int) -> Network:
    """Blocks of linear maps that add what they read, often with a norm in front."""
    make = Maker(seed)
    pick = make.choice
    d, inner = 8, pick.choice((8, 16))
    word = pick.choice(("blocks", "layers", "resblocks", "mixers", "stages"))
    one, two, norm = pick.choice((("fc1", "fc2", "norm"), ("linear1", "linear2", "ln"),
                                  ("1", "3", "0"), ("net.1", "net.3", "net.0"),
                                  ("lin_in", "lin_out", "norm1")))  # fmt: skip
    norms = pick.random() < 0.5
    net = Network(f"residual maps, {one}", free=set())
    make.linear(net, "stem", d, 5, bias=True)
    for at in range(pick.choice((2, 3))):
        base = f"{word}.{at}"
        if norms:
            make.norm(net, f"{base}.{norm}", d)
        _chain(make, net, [f"{base}.{one}", f"{base}.{two}"], [d, inner, d])
    _pair(net, "stem", f"{word}.0.{one}", free=False)
    return net


def autoencoders(seed: int) -> Network:
    """Encoders whose latent is read by several, or is written by a mean and a variance."""
    make = Maker(seed)
    pick = make.choice
    latent, hidden = pick.choice((6, 8)), 8
    style = pick.choice(("fc21", "mu", "fc_mu", "two readers", "heads"))
    net = Network(f"autoencoder, {style}", free=set())
    if style in ("two readers", "heads"):
        names = ("encoder", "decoder", "classifier") if style[0] == "t" else (
            "backbone", "policy_head", "value_head")  # fmt: skip
        _chain(make, net, [f"{names[0]}.0", f"{names[0]}.2"], [20, hidden, latent])
        for name, out in ((names[1], 20), (names[2], 3)):
            _chain(make, net, [f"{name}.0", f"{name}.2"], [latent, hidden, out])
            _pair(net, f"{names[0]}.2", f"{name}.0", free=False)
        return net
    mean, variance = {"fc21": ("fc21", "fc22"), "mu": ("mu", "logvar"),
                      "fc_mu": ("fc_mu", "fc_var")}[style]  # fmt: skip
    last = 3 if style == "fc21" else 2
    make.linear(net, "fc1", hidden, 20, bias=True)
    for name in (mean, variance):
        make.linear(net, name, latent, hidden, bias=True)
        _pair(net, "fc1", name, free=False)
    _chain(make, net, [f"fc{last}", f"fc{last + 1}"], [latent, hidden, 20])
    return net


def pairs_side_by_side(seed: int) -> Network:
    """Additive attention, gated linear units, adapters, experts of several layers."""
    make = Maker(seed)
    pick = make.choice
    d, small = 8, 4
    style = pick.choice(("additive", "glu", "adapter", "experts", "ffn experts"))
    net = Network(f"side by side, {style}", free=set())
    if style == "additive":
        base = pick.choice(("attention", "attn", "decoder.attention", "align"))
        one, two, three = pick.choice((("W1", "W2", "V"), ("W1", "W2", "v"), ("Wa", "Ua", "Va"),
                                       ("linear1", "linear2", "score")))  # fmt: skip
        for name in (one, two):
            make.linear(net, f"{base}.{name}", d, d, bias=True)
        make.linear(net, f"{base}.{three}", 1, d, bias=False)
        for name in (one, two):
            _pair(net, f"{base}.{name}", f"{base}.{three}", free=False)
    elif style == "glu":
        base = pick.choice(("glu", "gate", "highway", "block.glu", "gated"))
        for n in (1, 2):
            make.linear(net, f"{base}.{pick.choice(('linear', 'linear'))}{n}", d, d, bias=True)
        make.linear(net, "out", 2, d, bias=True)
    elif style == "adapter":
        base = pick.choice(("adapter", "mlp_adapter", "attn.adapter", "adaptor"))
        down, up = pick.choice((("down_proj", "up_proj"), ("down", "up"), ("fc_down", "fc_up")))
        for at in range(2):
            _chain(make, net, [f"layers.{at}.{base}.{down}", f"layers.{at}.{base}.{up}"],
                   [d, small, d])  # fmt: skip
    else:
        over = pick.choice(("experts", "branches", "moe.experts", "towers"))
        names = ("0", "2") if style == "experts" else ("fc1", "fc2")
        for at in range(2):
            for one in range(pick.choice((2, 3))):
                base = f"layers.{at}.{over}.{one}"
                _chain(make, net, [f"{base}.{n}" for n in names], [d, pick.choice((8, 16)), d])
    return net


BRANCHING = (
    (towers, 90), (joined_branches, 60), (u_net, 60), (turns, 80), (norm_lists, 90),
    (residual_convolutions, 60), (residual_maps, 60), (autoencoders, 60),
    (pairs_side_by_side, 80),
)  # fmt: skip
