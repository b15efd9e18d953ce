"""The propagation network: a space-time memory network (STM) for masks of several objects.

One class serves training and inference. Everything that depends only on the query frame is computed
once for all its objects; tensors carry a batch dimension B and an object dimension K.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.modules import Decoder, DecoderContext, split_objects


class Query(NamedTuple):
    """A frame as it asks the memory: one for all objects."""
    f16: Tensor                 # (B, C, h, w)
    key: Tensor                 # (B, C_k, h, w)
    context: DecoderContext


def objects_at_once(device: torch.device) -> int:
    """How many objects to encode or decode together: a CPU gains nothing from more than one, but needs the memory."""
    return 1 if device.type == "cpu" else 4


class PropagationNetwork(nn.Module):
    """Memorises frames with their masks and segments further frames from that memory.

    Reading the memory lies between the two (`model.memory_reader.read`): it has no weights, and how it reads
    (top-k, kernel) is the caller's choice.

    Args:
        rgb_encoder: image (B, 3, H, W) -> features at stride 16, 8, 4.
        mask_rgb_encoder: ``image_part``, of the image or (without kv_m_f16) of rgb_encoder's stride-16 features, and
            of that with masks (B, K, M, H, W) -> features (B*K, C, h, w); M is 1 where it sees the object's mask
            alone (single-object training), 2 where also the sum of all others.
        kv_m_f16: what mask_rgb_encoder gives -> a memory frame's key and value. None: that is the value, and the
            frame's key is the one it would ask with, the same for all objects.
        kv_q_f16: a query's stride-16 features -> key, value.
        decoder: readout and what the query gives it -> logits.
        single_object: whether the mask encoder sees the object's mask alone.
        variant: the network's name in `model.variants`, which knows weights by the names of their tensors.
    """

    def __init__(self, rgb_encoder: nn.Module, mask_rgb_encoder: nn.Module, kv_m_f16: nn.Module | None,
                 kv_q_f16: nn.Module, decoder: Decoder, single_object: bool = False, variant: str = "published"):
        super().__init__()
        self.mask_rgb_encoder = mask_rgb_encoder
        self.rgb_encoder = rgb_encoder
        self.kv_m_f16 = kv_m_f16
        self.kv_q_f16 = kv_q_f16
        self.decoder = decoder
        self.single_object = single_object
        self.variant = variant
        self.train()

    @property
    def shares_keys(self) -> bool:
        """Whether a memory frame has one key for all objects, which is its key as a query."""
        return self.kv_m_f16 is None

    def memorize(self, image: Tensor, masks: Tensor, query: Query | None = None) -> tuple[Tensor, Tensor]:
        """Encode a frame and its objects for the memory.

        Args:
            image: (B, 3, H, W), normalised, H and W multiples of 16.
            masks: (B, K, H, W) probabilities.
            query: what `encode_query` made of the image; spares a network that shares keys to do it again.

        Returns:
            key (B, K, C_k, h, w), or (B, 1, C_k, h, w) if all objects share it, and value (B, K, C_v, h, w);
            h = H/16, w = W/16.
        """
        channels = masks.unsqueeze(2)
        if not self.single_object:
            # Added up from the others alone, since subtracting from the total would leave rounding errors.
            rest = [torch.cat([masks[:, :k], masks[:, k + 1:]], 1).sum(1) for k in range(masks.shape[1])]
            channels = torch.cat([channels, torch.stack(rest, 1).unsqueeze(2)], 2)
        if self.shares_keys:
            query = query or self.encode_query(image)
            image_part = self.mask_rgb_encoder.image_part(query.f16)
            return query.key.unsqueeze(1), split_objects(self.mask_rgb_encoder(image_part, channels), len(masks))
        image_part = self.mask_rgb_encoder.image_part(image)
        keys, values = [], []
        for group in channels.split(objects_at_once(image.device), dim=1):
            key, value = self.kv_m_f16(self.mask_rgb_encoder(image_part, group))
            keys.append(split_objects(key, len(masks)))
            values.append(split_objects(value, len(masks)))
        return torch.cat(keys, 1), torch.cat(values, 1)

    def encode_query(self, image: Tensor) -> Query:
        """What a frame (B, 3, H, W) gives once for all objects."""
        f16, f8, f4 = self.rgb_encoder(image)
        key, value = self.kv_q_f16(f16)
        return Query(f16, key, self.decoder.context(value, f8, f4))

    def segment(self, query: Query, readout: Tensor) -> Tensor:
        """Readouts (B, K, C_v, h, w) of the memory -> independent probabilities (B, K, H, W)."""
        groups = readout.split(objects_at_once(readout.device), dim=1)
        return torch.sigmoid(torch.cat([self.decoder(group, query.context) for group in groups], 1))

    def train(self, mode: bool = True) -> PropagationNetwork:
        """As `nn.Module.train`, but batch normalisation keeps to its stored statistics always, as published."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
