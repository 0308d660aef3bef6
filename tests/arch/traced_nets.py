"""Networks of no known family, for tracing."""

import torch
from torch import nn
from torch.nn import functional


class Functional(nn.Module):
    """Activations as functions, in place, and by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 7)
        self.third, self.fourth = nn.Linear(7, 9, bias=False), nn.Linear(9, 10)
        self.last = nn.Linear(10, 3)

    def forward(self, x):
        x = functional.gelu(self.first(x), approximate="tanh")
        x = functional.relu_(self.second(x)) * 2
        x = self.third(x)
        x = self.fourth(functional.dropout(x, 0.5, self.training) / 3)
        return self.last(x * torch.sigmoid(x))


class Clamp(nn.Module):
    """Bounds of every entry, `min` and `max` as torch.clamp takes them."""

    def __init__(self, **bounds):
        super().__init__()
        self.bounds = bounds

    def forward(self, x):
        return torch.clamp(x, **self.bounds)


class Copied(nn.Module):
    """Values that are laid along a new dimension in front, and taken together again."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        values = torch.relu(self.first(x))
        return self.last(values.expand(2, *values.shape).mean(0))


class ResidualMlp(nn.Module):
    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        self.embed, self.head = nn.Linear(5, 6), nn.Linear(6, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(norm(6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(2)
        )

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Block(nn.Module):
    """A torchvision-style block: in-place ReLU, shortcut of convolution and norm."""

    def __init__(self, inputs, width, stride, *, bottleneck, norm):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        plan = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        plan = plan if bottleneck else [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.count = len(plan)
        for number, (i, o, kernel, step) in enumerate(plan, 1):
            conv = nn.Conv2d(i, o, kernel, step, kernel // 2, bias=not norm)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2d(o) if norm else nn.Identity())
        self.relu, self.downsample = nn.ReLU(inplace=True), None
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=not norm)
            self.downsample = nn.Sequential(
                conv, nn.BatchNorm2d(outputs) if norm else nn.Identity()
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = self.relu(x) if number < self.count else x
        x += identity
        return self.relu(x)


class ResNet(nn.Module):
    """As torchvision's, a few channels wide."""

    def __init__(self, *, bottleneck=False, norm=True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 7, 2, 3, bias=not norm)
        self.bn1 = nn.BatchNorm2d(7) if norm else nn.Identity()
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        channels = 7
        for stage, width in enumerate((7, 8), 1):
            blocks = []
            for number in range(2):
                step = 2 if stage > 1 and number == 0 else 1
                blocks.append(Block(channels, width, step, bottleneck=bottleneck, norm=norm))
                channels = width * (4 if bottleneck else 1)
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(channels, 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
            nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(5 * 7 * 7, 8), nn.ELU(),
                                        nn.Dropout(), nn.Linear(8, 3))  # fmt: skip

    def forward(self, x):
        return self.classifier(self.features(x))


class Attention(nn.Module):
    """By hand or by the fused function; queries, keys and values apart or in one map."""

    def __init__(self, *, fused, by_hand, groups=4, interleaved=False, width=16, heads=4):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.fused, self.by_hand, self.interleaved = fused, by_hand, interleaved
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q = nn.Linear(width, width)
            self.k = nn.Linear(width, groups * self.size)
            self.v = nn.Linear(width, groups * self.size, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        if self.fused and self.interleaved:
            q, k, v = self.qkv(x).view(b, t, self.heads, 3, self.size).permute(3, 0, 2, 1, 4)
        elif self.fused:
            parts = self.qkv(x).chunk(3, dim=-1)
            q, k, v = (p.reshape(b, t, self.heads, self.size).transpose(1, 2) for p in parts)
        else:
            q = self.q(x).view(b, t, self.heads, self.size).transpose(1, 2)
            k, v = (f(x).view(b, t, self.groups, self.size).transpose(1, 2)
                    for f in (self.k, self.v))  # fmt: skip
        repeat = self.heads // self.groups
        if repeat > 1 and self.by_hand:
            k, v = (one[:, :, None].expand(b, self.groups, repeat, t, self.size)
                    .reshape(b, self.heads, t, self.size) for one in (k, v))  # fmt: skip
        if self.by_hand:
            mask = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
            scores = (q @ k.transpose(-2, -1)) * self.size**-0.5
            mixed = scores.masked_fill(mask, float("-inf")).softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=repeat > 1
            )
        return self.proj(mixed.transpose(1, 2).reshape(b, t, d))


class Transformer(nn.Module):
    """Pre-norm, with a gated MLP; `attention` makes each block's attention."""

    def __init__(self, attention, *, depth=2, width=16, norm=nn.LayerNorm):
        super().__init__()
        self.embed, self.position = nn.Embedding(11, width), nn.Parameter(torch.zeros(16, width))
        self.attentions = nn.ModuleList(attention() for _ in range(depth))
        self.norms = nn.ModuleList(norm(width) for _ in range(2 * depth))
        self.up = nn.ModuleList(nn.Linear(width, 20) for _ in range(depth))
        self.gate = nn.ModuleList(nn.Linear(width, 20, bias=False) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(20, width) for _ in range(depth))
        self.head = nn.Linear(width, 11)

    def forward(self, ids):
        x = self.embed(ids) + self.position[: ids.shape[1]]
        for i, attention in enumerate(self.attentions):
            x = x + attention(self.norms[2 * i](x))
            y = self.norms[2 * i + 1](x)
            x = x + self.down[i](functional.silu(self.gate[i](y)) * self.up[i](y))
        return self.head(x)


class Stock(nn.Module):
    """Modules of torch itself: encoder layers, cross attention, MultiheadAttention."""

    def __init__(self, *, norm_first=False, activation="relu", weights=False):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first,
                                           activation=activation)  # fmt: skip
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 12, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.head, self.weights = nn.Linear(8, 4), weights

    def forward(self, ids):
        x = self.embed(ids)
        x = self.decoder(x, self.encoder(x))
        return self.head(x + self.attention(x, x, x, need_weights=self.weights)[0])


class Glu(nn.Module):
    """One map holds gate and values."""

    def __init__(self, *, chunked):
        super().__init__()
        self.both, self.down, self.chunked = nn.Linear(5, 16), nn.Linear(8, 3), chunked

    def forward(self, x):
        if self.chunked:
            gate, up = self.both(x).chunk(2, dim=-1)
            return self.down(functional.gelu(gate) * up)
        return self.down(functional.glu(self.both(x)))
