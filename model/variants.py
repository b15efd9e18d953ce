"""The networks that can be built, each a table of parts and widths."""
from __future__ import annotations

from model.backbones import ImageEncoder, MaskEncoder
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
