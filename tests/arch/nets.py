"""Small residual networks with the tensor names of the CIFAR and the torchvision ResNets."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """A basic block (two convolutions) or a bottleneck (three)."""

    def __init__(self, inputs, width, stride, *, bottleneck, shortcut):
        super().__init__()
        outputs = width * (2 if bottleneck else 1)
        sizes = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
        sizes = sizes if bottleneck else [(inputs, width, 3), (width, width, 3)]
        for number, (i, o, kernel) in enumerate(sizes, 1):
            step = stride if number == (2 if bottleneck else 1) else 1
            conv = nn.Conv2d(i, o, kernel, stride=step, padding=kernel // 2, bias=False)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2d(o))
        self.count, self.stride, self.padding = len(sizes), stride, outputs - inputs
        if shortcut and (stride > 1 or inputs != outputs):
            layers = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            setattr(self, shortcut, nn.Sequential(*layers))
        self.name = shortcut

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = functional.relu(y) if number < self.count else y
        if self.name and hasattr(self, self.name):
            x = getattr(self, self.name)(x)
        elif self.stride > 1 or self.padding:  # subsample and pad with zeros
            half = self.padding // 2
            padded = (0, 0, 0, 0, half, self.padding - half)
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], padded)
        return functional.relu(x + y)


class ResNet(nn.Module):
    """`last` is "linear" (CIFAR) or "fc" (torchvision), `shortcut` "downsample" or "" (padding)."""

    def __init__(self, *, bottleneck=False, shortcut="downsample", last="fc", blocks=2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        channels = 4
        for stage, width in enumerate((4, 8), 1):
            layers = []
            for number in range(blocks):
                stride = 2 if stage > 1 and number == 0 else 1
                layers.append(
                    Block(channels, width, stride, bottleneck=bottleneck, shortcut=shortcut)
                )
                channels = width * (2 if bottleneck else 1)
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        setattr(self, last, nn.Linear(channels, 5))
        self.last = last

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x)).mean((2, 3))
        return getattr(self, self.last)(x)


class Mlp(nn.Module):
    """`pointwise` makes 1 × 1 convolutions of its linear maps, as timm's smaller ConvNeXts do."""

    def __init__(self, inputs, hidden, *, pointwise=False):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, inputs)
        if pointwise:
            self.fc1, self.fc2 = nn.Conv2d(inputs, hidden, 1), nn.Conv2d(hidden, inputs, 1)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class MixerBlock(nn.Module):
    def __init__(self, tokens, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mlp_tokens, self.mlp_channels = Mlp(tokens, 6), Mlp(channels, 20)

    def forward(self, x):
        x = x + self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp_channels(self.norm2(x))


class MlpMixer(nn.Module):
    """Tolstikhin et al., arXiv 2105.01601, with the tensor names of timm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Module()
        self.stem.proj = nn.Conv2d(3, 10, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(4, 10), MixerBlock(4, 10))
        self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.stem.proj(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


class ConvNextBlock(nn.Module):
    def __init__(self, channels, *, pointwise):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp, self.pointwise = Mlp(channels, 4 * channels, pointwise=pointwise), pointwise

    def forward(self, x):
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        y = self.mlp(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if self.pointwise else self.mlp(y)
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Liu et al., arXiv 2201.03545, with the tensor names of timm; two stages of two widths."""

    def __init__(self, *, pointwise=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.GroupNorm(1, 6))
        self.stages = nn.Sequential()
        for i, (inputs, width) in enumerate(((6, 6), (6, 8))):
            stage = nn.Module()
            stage.downsample = nn.Conv2d(inputs, width, 1) if i else nn.Identity()
            stage.blocks = nn.Sequential(*(ConvNextBlock(width, pointwise=pointwise) for _ in "12"))
            stage.forward = lambda x, stage=stage: stage.blocks(stage.downsample(x))
            self.stages.append(stage)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def image(size=8):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3)).double()
