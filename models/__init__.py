"""The network: one box of the figure, one file."""

from __future__ import annotations

from common.errors import UserError
from models.build import build_model, build_teacher
from models.guide import Guide
from models.matting_network import MattingNetwork, MattingOutput
from models.refiner import Refiner
from models.teacher import TeacherAutoencoder

__all__ = [
    "Guide",
    "MattingNetwork",
    "MattingOutput",
    "UserError",
    "Refiner",
    "TeacherAutoencoder",
    "build_model",
    "build_teacher",
]
