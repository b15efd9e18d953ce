"""Normalisation of images with the ImageNet mean and standard deviation."""
from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Normalise RGB images for the network.

    Args:
        images: (..., 3, H, W) uint8.

    Returns:
        (..., 3, H, W) float32, contiguous.
    """
    images = images.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    for index, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        images.select(-3, index).sub_(mean).div_(std)       # channel by channel: no temporary of the image's size
    return images
