"""The network: one box of the figure, one file; and the factory, where its parts are built and passed in."""

from __future__ import annotations

import copy

from models.decoder import Decoder
from models.encoder import Encoder
from models.matting_network import MattingNetwork, MattingOutput
from models.refiner import Refiner
from models.teacher import TeacherAutoencoder

__all__ = ["MattingNetwork", "MattingOutput", "Refiner", "TeacherAutoencoder", "build_model", "build_teacher"]


def build_model(
    *,
    backbone: str,
    image_size: int,
    use_refiner: bool = True,
    refiner_channels: int = 32,
    refiner_blocks: int = 3,
    use_colours: bool = True,
    use_attention: bool = True,
    use_octaves: bool = True,
    smart_init: bool = True,
    drop_path: float = 0.0,
    pretrained: bool = False,
    backbone_weights: str | None = None,
) -> MattingNetwork:
    """Build TSR-Matte; without a refiner it is TwinSwin-Matte.

    backbone: a name in timm of a family in models/encoder.py; image_size: working size of the long side in pixels. With
    `pretrained` the encoder starts from ImageNet weights, from the hub or from the local file `backbone_weights`.
    Raises UserError where those cannot be loaded.
    """
    student = Encoder(backbone, pretrained=pretrained, weights_file=backbone_weights, drop_path=drop_path)
    decoder = Decoder(student.channels)
    refiner = None
    if use_refiner:
        refiner = Refiner(
            refiner_channels,
            # 16 or a multiple of it: in bfloat16 on a CPU, oneDNN's weight gradient of a dilated convolution is wrong
            # (NaN, or worse) for the other widths that were tried, such as 8, 12 and 24
            branch_channels=max(16, refiner_channels // 2),
            blocks=refiner_blocks,
            use_attention=use_attention,
            use_colours=use_colours,
            use_octaves=use_octaves,
            smart_init=smart_init,
        )
    return MattingNetwork(student=student, decoder=decoder, refiner=refiner, image_size=image_size)


def build_teacher(
    network: MattingNetwork,
    *,
    backbone: str,
    drop_path: float = 0.0,
    pretrained: bool = False,
    backbone_weights: str | None = None,
) -> TeacherAutoencoder:
    """Build the autoencoder of alphas that the first stage trains, with a copy of the network's decoder.

    The first layer of a pretrained encoder is averaged over colour, since an alpha has one channel. Raises
    UserError as build_model does.
    """
    encoder = Encoder(
        backbone, in_channels=1, pretrained=pretrained, weights_file=backbone_weights, drop_path=drop_path
    )
    return TeacherAutoencoder(encoder=encoder, decoder=copy.deepcopy(network.decoder))
