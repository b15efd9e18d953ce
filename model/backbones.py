"""ResNet-50 encoders up to stride 16, with the names of the published state dict.

They are not torchvision's, since the convolutions of the mask encoder have biases, and since importing torchvision
costs inference 1.6 s and 170 MB of memory.
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model.modules import merge_objects, partial_convolution, split_objects


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 residual block, with the stride in the 3x3."""

    def __init__(self, in_channels: int, width: int, stride: int, bias: bool):
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias),
                                            nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


def residual_stage(in_channels: int, width: int, blocks: int, stride: int, bias: bool) -> nn.Sequential:
    """Return a stage of bottlenecks, the first with the stride s: (N, C, H, W) -> (N, 4 width, H/s, W/s)."""
    first = Bottleneck(in_channels, width, stride, bias)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1, bias) for _ in range(blocks - 1)))


class ImageEncoder(nn.Module):
    """ResNet-50 for query frames."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.res2 = residual_stage(64, 64, 3, 1, bias=False)
        self.layer2 = residual_stage(256, 128, 4, 2, bias=False)
        self.layer3 = residual_stage(512, 256, 6, 2, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> features at stride 16, 8 and 4: 1024, 512 and 256 channels."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        f4 = self.res2(F.max_pool2d(x, 3, 2, padding=1))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class MaskEncoder(nn.Module):
    """ResNet-50 for memory frames with masks; every convolution has a bias."""

    def __init__(self, mask_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3 + mask_channels, 64, 7, 2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = residual_stage(64, 64, 3, 1, bias=True)
        self.layer2 = residual_stage(256, 128, 4, 2, bias=True)
        self.layer3 = residual_stage(512, 256, 6, 2, bias=True)

    def image_part(self, image: Tensor) -> Tensor:
        """Return the image's part in the first convolution, shared by objects: (B, 3, H, W) -> (B, 64, H/2, W/2)."""
        return partial_convolution(self.conv1, image)

    def forward(self, image_part: Tensor, masks: Tensor) -> Tensor:
        """image_part: of `image_part`; masks: (B, K, mask_channels, H, W) -> (B*K, 1024, H/16, W/16)."""
        x = split_objects(partial_convolution(self.conv1, merge_objects(masks), first_channel=3), len(masks))
        x = merge_objects(x.add_(image_part.unsqueeze(1)))
        x = F.relu(self.bn1(x), inplace=True)
        x = self.layer1(F.max_pool2d(x, 3, 2, padding=1))
        return self.layer3(self.layer2(x))
