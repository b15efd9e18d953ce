"""Building blocks of the propagation network: residual block, key/value heads, decoder."""
from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model import winograd


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1; wide ones run by Winograd's algorithm on a CPU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if winograd.should_use_winograd(x, weight):
            return winograd.convolve(x, weight, bias)
        return super()._conv_forward(x, weight, bias)

    def of_relu(self, x: Tensor) -> Tensor:
        """Return the convolution of relu(x), without a tensor for relu(x) where our Winograd convolution is used."""
        if winograd.should_use_winograd(x, self.weight):
            return winograd.convolve(x, self.weight, self.bias, relu=True)
        return self(F.relu(x))


def merge_objects(x: Tensor) -> Tensor:
    """(B, K, ...) -> (B*K, ...).

    A batch of one keeps its strides: `flatten` would give dimensions of size one strides that hide the channels-last
    order, in which PyTorch pools and resizes ten times as fast.
    """
    return x.squeeze(0) if len(x) == 1 else x.flatten(0, 1)


def split_objects(x: Tensor, batch: int) -> Tensor:
    """(B*K, ...) -> (B, K, ...), with strides as in `merge_objects`."""
    return x.unsqueeze(0) if batch == 1 else x.unflatten(0, (batch, -1))


def partial_convolution(conv: nn.Conv2d, x: Tensor, first_channel: int = 0) -> Tensor:
    """Convolve some of the input channels of ``conv``.

    The convolution of a concatenation is the sum over its parts, so a part that objects share is convolved once.

    Args:
        conv: a convolution with more input channels than x has.
        x: (N, C, H, W), the channels from ``first_channel`` on. The bias is added for the first part only.
    """
    weight = conv.weight[:, first_channel:first_channel + x.shape[1]]
    return conv._conv_forward(x, weight, conv.bias if first_channel == 0 else None)


class ResBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, added to the input (through another 3x3 if the widths differ)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = Conv3x3(in_channels, out_channels)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        residual = self.conv2(F.relu(self.conv1.of_relu(x), inplace=True))
        return residual.add_(x if self.downsample is None else self.downsample(x))


class JoiningResBlock(ResBlock):
    """A ResBlock of an object's own channels concatenated with channels that all objects share."""

    def shared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the shared channels (B, C_shared, H, W) contribute to the two convolutions of the input."""
        first = self.conv1.in_channels - x.shape[1]
        return partial_convolution(self.conv1, F.relu(x), first), partial_convolution(self.downsample, x, first)

    def forward(self, x: Tensor, shared: tuple[Tensor, Tensor]) -> Tensor:
        """x: (B, K, C_own, H, W); shared: of `shared` -> (B, K, C_out, H, W)."""
        def convolve(conv: nn.Conv2d, own: Tensor, rest: Tensor) -> Tensor:
            return split_objects(partial_convolution(conv, merge_objects(own)), len(x)).add_(rest.unsqueeze(1))

        hidden = F.relu(convolve(self.conv1, F.relu(x), shared[0]), inplace=True)
        residual = split_objects(self.conv2(merge_objects(hidden)), len(x))
        return residual.add_(convolve(self.downsample, x, shared[1]))


class UpsampleBlock(nn.Module):
    """Adds upsampled features to skip features of twice their resolution."""

    def __init__(self, skip_channels: int, up_channels: int, out_channels: int):
        super().__init__()
        self.skip_conv1 = Conv3x3(skip_channels, up_channels)
        self.skip_conv2 = ResBlock(up_channels, up_channels)
        self.out_conv = ResBlock(up_channels, out_channels)

    def skip(self, features: Tensor) -> Tensor:
        """Return the skip branch, which objects share: (B, C_skip, H, W) -> (B, C_up, H, W)."""
        return self.skip_conv2(self.skip_conv1(features))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (B, K, C_up, H/2, W/2); skip: (B, C_up, H, W) of `skip` -> (B, K, C_out, H, W)."""
        upsampled = F.interpolate(merge_objects(x), scale_factor=2, mode="bilinear", align_corners=False)
        joined = split_objects(upsampled, len(x)).add_(skip.unsqueeze(1))
        return split_objects(self.out_conv(merge_objects(joined)), len(x))


class KeyValue(nn.Module):
    """Projects stride-16 features to a key and a value."""

    def __init__(self, in_channels: int, key_channels: int, value_channels: int):
        super().__init__()
        self.key_proj = Conv3x3(in_channels, key_channels)
        self.val_proj = Conv3x3(in_channels, value_channels)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> key (N, C_k, h, w), value (N, C_v, h, w)."""
        return self.key_proj(f16), self.val_proj(f16)


class DecoderContext(NamedTuple):
    """Decoder features of the query frame, shared by all objects."""
    value: tuple[Tensor, Tensor]      # contribution of the query value to `compress`, (B, C, h, w) each
    skip8: Tensor                     # (B, C, 2h, 2w)
    skip4: Tensor                     # (B, C, 4h, 4w)


class Decoder(nn.Module):
    """Decodes readouts to mask logits.

    Args:
        value_channels: channels of the readout, and of the query's own value.
        f8_channels, f4_channels: channels of the image features at stride 8 and 4.
        widths: channels at stride 16, 8 and 4.
    """

    def __init__(self, value_channels: int, f8_channels: int, f4_channels: int, widths: tuple[int, int, int]):
        super().__init__()
        w16, w8, w4 = widths
        self.compress = JoiningResBlock(2 * value_channels, w16)
        self.up_16_8 = UpsampleBlock(f8_channels, w16, w8)
        self.up_8_4 = UpsampleBlock(f4_channels, w8, w4)
        self.pred = Conv3x3(w4, 1)

    def context(self, value: Tensor, f8: Tensor, f4: Tensor) -> DecoderContext:
        """Compute what objects share, from the query's value and image features (B, C, ., .)."""
        return DecoderContext(self.compress.shared(value), self.up_16_8.skip(f8), self.up_8_4.skip(f4))

    def forward(self, readout: Tensor, context: DecoderContext) -> Tensor:
        """readout: (B, K, C_v, h, w) -> logits (B, K, 16h, 16w), before soft aggregation."""
        x = self.compress(readout, context.value)
        x = self.up_16_8(x, context.skip8)
        x = self.up_8_4(x, context.skip4)
        logits = self.pred(F.relu(merge_objects(x)))
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return split_objects(logits.squeeze(1), len(x))
