"""Augmentation for training with torchvision's v2 transforms, which transform an image and its mask in one call.

Images are `tv_tensors.Image` and masks `tv_tensors.Mask`; with shape (T, C, H, W), all frames share the random draws.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from tps import ThinPlateSpline

from util.opencv import cv2

SIZE = 384
FILL = (124, 116, 104)      # mean colour of ImageNet
MAP_STEP = 8                # pixels of the grid on which a spline is evaluated; linear in between


class Warp(v2.Transform):
    """Base of the geometric transforms that OpenCV computes, by ``warp`` of one image or mask (H, W, C) uint8.

    Args:
        image, mask: OpenCV's interpolation flags.
        fill: colour outside of an image. Outside of a mask it is 0.
    """

    def __init__(self, image: int, mask: int, fill: tuple[int, int, int]):
        super().__init__()
        self.image, self.mask, self.fill = image, mask, fill

    def transform(self, inpt: object, params: dict[str, Any]) -> object:
        """Return a warped image or mask (..., C, H, W); anything else unchanged."""
        if not isinstance(inpt, (tv_tensors.Image, tv_tensors.Mask)):
            return inpt
        is_image = isinstance(inpt, tv_tensors.Image)
        planes = inpt.reshape(-1, *inpt.shape[-3:]).permute(0, 2, 3, 1).contiguous().numpy()
        method, fill = (self.image, self.fill) if is_image else (self.mask, (0, 0, 0))
        warped = [self.warp(plane, params, method, fill).reshape(plane.shape) for plane in planes]
        out = torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2).contiguous().reshape(inpt.shape)
        return tv_tensors.wrap(out, like=inpt)


class Affine(Warp):
    """Rotation, scale and shear along x around the centre, each drawn uniformly (angles in degrees)."""

    def __init__(self, degrees: float = 0, scale: tuple[float, float] = (1, 1), shear: float = 0,
                 image: int = cv2.INTER_CUBIC, mask: int = cv2.INTER_NEAREST):
        super().__init__(image, mask, FILL)
        self.degrees, self.scale, self.shear = degrees, scale, shear

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the affine matrix (2, 3) from source to target."""
        height, width = flat_inputs[0].shape[-2:]
        angle, shear = (torch.empty(2).uniform_(-1, 1) * torch.tensor([self.degrees, self.shear])).deg2rad().tolist()
        scale = torch.empty(1).uniform_(*self.scale).item()
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = scale * turn @ np.array([[1, -np.tan(shear)], [0, 1]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        return {"matrix": np.hstack([linear, (centre - linear @ centre)[:, None]])}

    def warp(self, plane: np.ndarray, params: dict[str, Any], method: int, fill: tuple) -> np.ndarray:
        return cv2.warpAffine(plane, params["matrix"], plane.shape[1::-1], flags=method, borderValue=fill)


class ThinPlateWarp(Warp):
    """Smooth random deformation: a thin-plate spline through control points on distinct rows and columns."""

    POINTS = 12
    SIGMA = 0.02            # standard deviation of their shifts, as a fraction of the image size

    def __init__(self):
        super().__init__(cv2.INTER_LINEAR, cv2.INTER_NEAREST, (0, 0, 0))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the control points and return the source coordinates of all pixels, ``x`` and ``y`` (H, W)."""
        height, width = flat_inputs[0].shape[-2:]
        rows, columns = torch.randperm(height)[:self.POINTS] / height, torch.randperm(width)[:self.POINTS] / width
        target = torch.stack([rows, columns], 1).double().numpy()
        source = target + self.SIGMA * torch.randn(self.POINTS, 2).double().numpy()
        spline = ThinPlateSpline(alpha=0.0).fit(target, source)
        rows, columns = (-(-side // MAP_STEP) + 1 for side in (height, width))
        y, x = np.meshgrid(np.arange(rows) * MAP_STEP / height, np.arange(columns) * MAP_STEP / width, indexing="ij")
        coarse = spline.transform(np.stack([y.ravel(), x.ravel()], 1)).reshape(rows, columns, 2) * [height, width]
        at = np.stack(np.meshgrid(np.arange(width) / MAP_STEP, np.arange(height) / MAP_STEP), -1).astype(np.float32)
        dense = cv2.remap(coarse.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        return {"x": np.ascontiguousarray(dense[..., 1]), "y": np.ascontiguousarray(dense[..., 0])}

    def warp(self, plane: np.ndarray, params: dict[str, Any], method: int, fill: tuple) -> np.ndarray:
        return cv2.remap(plane, params["x"], params["y"], method, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)


class ExactNearest:
    """Mixin for transforms that resize: a mask pixel gets the value of the nearest pixel centre.

    torchvision takes the pixel above and to the left instead, which shifts masks by up to half a pixel.
    """

    def transform(self, inpt: object, params: dict[str, Any]) -> object:
        """Return a mask resized so; anything else as the transform resizes it."""
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        plain = inpt.as_subclass(Tensor)
        if params:          # of the crop
            plain = v2.functional.crop_image(plain, **params)
        resized = v2.functional.resize_image(plain, self.size, InterpolationMode.NEAREST_EXACT, antialias=False)
        return tv_tensors.wrap(resized, like=inpt)


class Resize(ExactNearest, v2.Resize):
    """`v2.Resize` that does not shift masks."""


class RandomResizedCrop(ExactNearest, v2.RandomResizedCrop):
    """`v2.RandomResizedCrop` that does not shift masks."""


def static_sequence() -> v2.Transform:
    """Return the transforms that all frames of a static image share."""
    return v2.Compose([
        Affine(scale=(0.8, 1.5), image=cv2.INTER_NEAREST), v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.1, 0.05, 0.05, 0.05), v2.RandomGrayscale(0.05)])


def static_frame(size: int = SIZE) -> v2.Transform:
    """Return the transforms of each frame of a static image. The mask stays soft."""
    return v2.Compose([
        Affine(20, (0.9, 1.1), 10, mask=cv2.INTER_CUBIC), Resize([size], InterpolationMode.BICUBIC),
        v2.RandomCrop(size, pad_if_needed=True, fill={tv_tensors.Image: FILL, tv_tensors.Mask: 0}),
        v2.ColorJitter(0.1, 0.05, 0.05), v2.RandomApply([ThinPlateWarp()], 0.33)])


def video_sequence(smallest: float, size: int = SIZE) -> v2.Transform:
    """Return the transforms that all frames of a video share; ``smallest``: minimum area of a crop, as a fraction."""
    return v2.Compose([
        v2.RandomHorizontalFlip(), RandomResizedCrop(size, (smallest, 1), interpolation=InterpolationMode.BICUBIC),
        v2.ColorJitter(0.1, 0.03, 0.03), v2.RandomGrayscale(0.05)])


def video_frame() -> v2.Transform:
    """Return the transforms of each frame of a video."""
    return v2.Compose([Affine(15, shear=10), v2.ColorJitter(0.01, 0.01, 0.01)])
