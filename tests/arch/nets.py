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


def image(size=8):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3)).double()
