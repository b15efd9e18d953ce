"""Normalisation of images with the mean and standard deviation of ImageNet."""
from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """The images as input of the network: (..., 3, H, W) uint8 RGB to contiguous float32 of the same shape."""
    images = images.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    for channel, mean, std in zip(range(3), IMAGENET_MEAN, IMAGENET_STD, strict=True):
        images.select(-3, channel).sub_(mean).div_(std)      # one channel at a time: no temporary of the image's size
    return images
