"""The network: one box of the figure, one file."""

from __future__ import annotations

from models.decoder import Decoder
from models.encoder import Encoder, PretrainedWeightsError
from models.matting_network import MattingNetwork, MattingOutput
from models.refiner import Refiner

__all__ = ["MattingNetwork", "MattingOutput", "PretrainedWeightsError", "build_model"]


def build_model(
    *,
    backbone: str,
    image_size: int,
    use_refiner: bool = True,
    use_teacher: bool = False,
    refiner_channels: int = 32,
    refiner_blocks: int = 3,
    use_colours: bool = True,
    use_attention: bool = True,
    smart_init: bool = True,
    drop_path: float = 0.0,
    pretrained: bool = False,
    backbone_weights: str | None = None,
) -> MattingNetwork:
    """Put the parts together.

    backbone: a timm Swin name; image_size: working size of the long side in pixels. With `pretrained` both encoders
    start from ImageNet weights (the teacher's first layer averages over colour), from the hub or from the local file
    `backbone_weights`. Raises PretrainedWeightsError where those cannot be had.
    """
    weights = dict(pretrained=pretrained, weights_file=backbone_weights, drop_path=drop_path)
    student = Encoder(backbone, **weights)
    teacher = Encoder(backbone, in_channels=1, **weights) if use_teacher else None
    decoder = Decoder(student.channels)
    refiner = None
    if use_refiner:
        # Branches of 16 channels or a multiple of it: in bfloat16 on a CPU, oneDNN's weight gradient of a dilated
        # convolution is wrong (NaN, or worse) for the other widths that were tried, such as 8, 12 and 24.
        refiner = Refiner(
            refiner_channels,
            branch_channels=max(16, refiner_channels // 2),
            blocks=refiner_blocks,
            use_attention=use_attention,
            use_colours=use_colours,
            smart_init=smart_init,
        )
    return MattingNetwork(student=student, decoder=decoder, refiner=refiner, teacher=teacher, image_size=image_size)
