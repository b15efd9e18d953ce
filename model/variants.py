"""The networks by name, each a table of modules and widths."""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from model.backbones import ImageEncoder, MaskEncoder
from model.efficientnet import DeepFeatures, EfficientNetLite
from model.lite import AngularKey, LiteMaskEncoder, QueryKeyValue
from model.modules import Decoder, KeyValue
from model.network import PropagationNetwork


def published_network(single_object: bool = False) -> PropagationNetwork:
    """Build the network of MiVOS: 53.7 M parameters, ResNet-50, 128 key and 512 value channels.

    Weights have PyTorch's default initialisation.

    Args:
        single_object: the mask encoder sees RGB and the object's mask (4 channels), but not the sum of the other masks.
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
    """Build the small network: 6.0 M parameters, EfficientNet-Lite2, 64 key and 128 value channels."""
    c16, c8, c4 = EfficientNetLite.CHANNELS
    return PropagationNetwork(
        rgb_encoder=EfficientNetLite(),
        mask_rgb_encoder=LiteMaskEncoder(c16, width=96),
        kv_m_f16=None,
        kv_q_f16=QueryKeyValue(c16, value_channels=128, key=AngularKey(c16, key_channels=64),
                               deep=DeepFeatures(c16)),
        decoder=Decoder(value_channels=128, f8_channels=c8, f4_channels=c4, widths=(96, 48, 32)),
        variant="lite",
    )


def build(variant: str, single_object: bool = False) -> PropagationNetwork:
    """Build the network named ``published`` or ``lite``; ``single_object`` makes no difference to lite."""
    return lite_network() if variant == "lite" else published_network(single_object)


def variant_of(state: Mapping[str, Tensor]) -> str:
    """Return the name of the network that a state dict belongs to."""
    return "lite" if any(name.startswith("mask_rgb_encoder.join.") for name in state) else "published"
