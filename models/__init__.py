"""The network: one box of the figure, one file."""

from __future__ import annotations

from models.build import build_model, build_teacher
from models.encoder import PretrainedWeightsError
from models.matting_network import MattingNetwork, MattingOutput
from models.refiner import Refiner
from models.teacher import TeacherAutoencoder

__all__ = [
    "MattingNetwork",
    "MattingOutput",
    "PretrainedWeightsError",
    "Refiner",
    "TeacherAutoencoder",
    "build_model",
    "build_teacher",
]
