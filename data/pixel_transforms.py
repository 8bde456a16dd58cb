"""torchvision v2 transforms on uint8 pixels by OpenCV, which is what makes augmenting cheaper than reading.

v2.Compose([v2.RandomApply([LensBlur((0.4, 1.6))], 0.1), JpegCoding((50, 95))])(tv_tensors.Image(image))
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class PixelTransform(v2.Transform):
    """A v2 transform of one uint8 Image by OpenCV; subclasses draw their numbers in make_params.

    v2 has its own versions, which go through float32 and cost 5 to 50 times as much: at 1024 x 1024 on one
    core 60 ms for a rotation, 40 for ColorJitter, 140 for GaussianBlur and GaussianNoise each, where reading
    the files takes 80.
    """

    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: Tensor, params: dict[str, float]) -> Tensor:
        return tv_tensors.Image(to_tensor(self.change(to_array(inpt), **params)))

    def change(self, pixels: np.ndarray, **params: float) -> np.ndarray:
        """uint8 (H, W, C) -> the same."""
        raise NotImplementedError


class SmallRotation(PixelTransform):
    """Turn by up to `degrees` about the centre and reflect at the borders; v2 would fill the corners with a colour."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def make_params(self, flat_inputs: list) -> dict[str, float]:
        return {"angle": _uniform(-self.degrees, self.degrees)}

    def change(self, pixels: np.ndarray, angle: float) -> np.ndarray:
        height, width = pixels.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        return cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


class ColourShift(PixelTransform):
    """Brightness, contrast, saturation and white balance, as one 3 x 4 matrix. No hue: skin is never green."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list) -> dict[str, float]:
        names = ("brightness", "contrast", "saturation")
        factors = {name: _uniform(1 - self.strength, 1 + self.strength) for name in names}
        return factors | {name: _uniform(1 - self.strength / 4, 1 + self.strength / 4) for name in ("red", "blue")}

    def change(self, pixels: np.ndarray, **factors: float) -> np.ndarray:
        luma = np.array([0.299, 0.587, 0.114])
        balance = np.diag([factors["red"], 1.0, factors["blue"]])
        saturation = factors["saturation"] * np.eye(3) + (1 - factors["saturation"]) * luma
        matrix = factors["contrast"] * saturation @ balance
        offset = (1 - factors["contrast"]) * (luma @ cv2.mean(pixels)[:3])  # contrast turns about the mean grey
        return cv2.transform(pixels, factors["brightness"] * np.column_stack([matrix, np.full(3, offset)]))


class LensBlur(PixelTransform):
    """Gaussian blur with sigma uniform in `sigma` pixels."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list) -> dict[str, float]:
        return {"sigma": _uniform(*self.sigma)}

    def change(self, pixels: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur(pixels, (0, 0), sigma)


class SensorNoise(PixelTransform):
    """Gaussian noise with sigma uniform in `sigma` grey levels."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list) -> dict[str, float]:
        return {"sigma": _uniform(*self.sigma)}

    def change(self, pixels: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.add(pixels, torch.randn(pixels.shape).mul_(sigma).numpy(), dtype=cv2.CV_8U)


class JpegCoding(PixelTransform):
    """To JPEG and back, with a quality of low to high; v2.JPEG needs torchvision.io, which is being removed."""

    def __init__(self, quality: tuple[int, int]) -> None:
        super().__init__()
        self.quality = quality

    def make_params(self, flat_inputs: list) -> dict[str, int]:
        return {"quality": int(torch.randint(self.quality[0], self.quality[1] + 1, ()))}

    def change(self, pixels: np.ndarray, quality: int) -> np.ndarray:
        blue_first = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _uniform(low: float, high: float) -> float:
    """From torch's global generator, as v2's own transforms draw."""
    return float(torch.empty(1).uniform_(low, high))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, C) to (C, H, W) without a copy."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def to_array(pixels: Tensor) -> np.ndarray:
    """(C, H, W) to (H, W, C), copied only where the channels are not last in memory."""
    return np.ascontiguousarray(pixels.as_subclass(Tensor).permute(1, 2, 0).numpy())
