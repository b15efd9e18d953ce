"""The networks that can be built, each a table of parts and widths."""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from model.backbones import ImageEncoder, MaskEncoder
from model.efficientnet import EfficientNetLite
from model.lite import AngularKey, LiteMaskEncoder, QueryKeyValue
from model.modules import Decoder, KeyValue
from model.network import PropagationNetwork


def published_network(single_object: bool = False) -> PropagationNetwork:
    """The network of MiVOS: 53.7 M parameters, ResNet-50, keys of 128 and values of 512 channels.

    Weights start at PyTorch's defaults; nothing is downloaded.

    Args:
        single_object: the mask encoder sees RGB and the object's mask (4 channels) and not the others' masks.
    """
    return PropagationNetwork(
        rgb_encoder=ImageEncoder(),
        mask_rgb_encoder=MaskEncoder(mask_channels=1 if single_object else 2),
        kv_m_f16=KeyValue(1024, key_channels=128, value_channels=512),
        kv_q_f16=KeyValue(1024, key_channels=128, value_channels=512),
        decoder=Decoder(value_channels=512, f8_channels=512, f4_channels=256, widths=(512, 256, 256)),
        single_object=single_object,
    )


def lite_network() -> PropagationNetwork:
    """The small network that comes with the code: 2.3 M parameters, EfficientNet-Lite0, keys of 64, values of 128."""
    c16, c8, c4 = EfficientNetLite.CHANNELS
    return PropagationNetwork(
        rgb_encoder=EfficientNetLite(),
        mask_rgb_encoder=LiteMaskEncoder(c16, width=96),
        kv_m_f16=None,
        kv_q_f16=QueryKeyValue(c16, value_channels=128, key=AngularKey(c16, key_channels=64)),
        decoder=Decoder(value_channels=128, f8_channels=c8, f4_channels=c4, widths=(96, 48, 32)),
        variant="lite",
    )


def build(variant: str, single_object: bool = False) -> PropagationNetwork:
    """The network of that name, published or lite. ``single_object``: see `published_network`; lite is always both."""
    return lite_network() if variant == "lite" else published_network(single_object)


def variant_of(state: Mapping[str, Tensor]) -> str:
    """Which network a state dict is of, by the names of its tensors."""
    return "lite" if any(name.startswith("mask_rgb_encoder.join.") for name in state) else "published"
