"""The propagation network: a space-time memory network (STM) for the masks of several objects.

Training and inference share this class. Whatever depends on the query frame alone is computed once for all objects.
Tensors carry a batch dimension B and an object dimension K.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.modules import Decoder, DecoderContext, split_objects


class Query(NamedTuple):
    """Features of a query frame, shared by all objects."""
    f16: Tensor                 # (B, C, h, w)
    key: Tensor                 # (B, C_k, h, w)
    context: DecoderContext

    def chunk(self, count: int) -> list[Query]:
        """Split the batch into equal parts."""
        f16, key, (value, skip8, skip4) = self
        values = zip(*(part.chunk(count) for part in value), strict=True)
        contexts = map(DecoderContext, values, skip8.chunk(count), skip4.chunk(count))
        return list(map(Query, f16.chunk(count), key.chunk(count), contexts))


def objects_per_batch(device: torch.device) -> int:
    """Return how many objects are encoded or decoded together; at inference on a CPU, more than one is no faster."""
    return 1 if device.type == "cpu" and not torch.is_grad_enabled() else 4


class PropagationNetwork(nn.Module):
    """Memorises frames with their masks, and segments further frames from that memory.

    Memory reading lies between the two and has no weights (`model.memory_reader.readout`). The caller chooses top-k
    and kernel.

    Args:
        rgb_encoder: image (B, 3, H, W) -> features at stride 16, 8 and 4.
        mask_rgb_encoder: `image_part` of the image, or, without kv_m_f16, of its stride-16 features; then
            `forward` of that and masks (B, K, M, H, W) -> features (B*K, C, h, w). M is 1 if the encoder sees the
            object's mask only (single-object training), 2 if it also sees the sum of all other masks.
        kv_m_f16: features of the mask encoder -> key and value of a memory frame. None: these features are the value,
            and the key is the frame's query key, shared by all objects (as in STCN, arXiv 2106.05210).
        kv_q_f16: stride-16 features of a query frame -> key, value.
        decoder: readout and features of the query frame -> logits.
        single_object: the mask encoder sees the object's mask only.
        variant: name of the network in `model.variants`.
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
        """Return whether a memory frame has one key for all objects, which is also its query key."""
        return self.kv_m_f16 is None

    def memorize(self, image: Tensor, masks: Tensor, query: Query | None = None) -> tuple[Tensor, Tensor]:
        """Encode a frame and its masks for the memory.

        Args:
            image: (B, 3, H, W), normalised; H and W are multiples of 16.
            masks: (B, K, H, W) probabilities.
            query: `encode_query` of the image, if it is known; saves a network with shared keys from repeating it.

        Returns:
            key (B, K, C_k, h, w), or (B, 1, C_k, h, w) if objects share it, and value (B, K, C_v, h, w);
            h = H/16, w = W/16.
        """
        channels = masks.unsqueeze(2)
        if not self.single_object:
            # The sum of the others, not the total minus one mask: a subtraction would leave rounding errors.
            others = [torch.cat([masks[:, :k], masks[:, k + 1:]], 1).sum(1) for k in range(masks.shape[1])]
            channels = torch.cat([channels, torch.stack(others, 1).unsqueeze(2)], 2)
        if self.shares_keys:
            query = query or self.encode_query(image)
            image_part = self.mask_rgb_encoder.image_part(query.f16)
            return query.key.unsqueeze(1), split_objects(self.mask_rgb_encoder(image_part, channels), len(masks))
        image_part = self.mask_rgb_encoder.image_part(image)
        keys, values = [], []
        for group in channels.split(objects_per_batch(image.device), dim=1):
            key, value = self.kv_m_f16(self.mask_rgb_encoder(image_part, group))
            keys.append(split_objects(key, len(masks)))
            values.append(split_objects(value, len(masks)))
        return torch.cat(keys, 1), torch.cat(values, 1)

    def encode_query(self, image: Tensor) -> Query:
        """Compute the features of a query frame (B, 3, H, W), once for all objects."""
        f16, f8, f4 = self.rgb_encoder(image)
        key, value = self.kv_q_f16(f16)
        return Query(f16, key, self.decoder.context(value, f8, f4))

    def segment(self, query: Query, readouts: Tensor) -> Tensor:
        """Decode readouts (B, K, C_v, h, w) to independent probabilities (B, K, H, W)."""
        groups = readouts.split(objects_per_batch(readouts.device), dim=1)
        return torch.sigmoid(torch.cat([self.decoder(group, query.context) for group in groups], 1))

    def train(self, mode: bool = True) -> PropagationNetwork:
        """As `nn.Module.train`, but batch normalisation always uses its stored statistics, as published."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
