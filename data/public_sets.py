"""How the authors of public data sets lay them out: one row of PUBLIC_SETS each, for data.prepare.

A comment above each row names two public sources for its folders. A set without two sources has no row.
"""

from __future__ import annotations

from typing import NamedTuple


class Split(NamedTuple):
    """A split of a set. name: its folder in the prepared data set; the others: folders in the download."""

    name: str
    photos: str
    truths: str  # a pattern as of Path.glob: the truths may lie in several folders


class PublicSet(NamedTuple):
    """The layout of a set, and what a person must know before using it."""

    splits: tuple[Split, ...]
    licence: str
    number: str = ""  # the end of a photo's name that its truth's name lacks, as a regular expression
    has_trimaps: bool = False  # the truths are trimaps: between 0 and 255 nobody knows the alpha


MIT = "the authors' release agreement, which they call an MIT licence; agree to it before you download"

PUBLIC_SETS = {
    # github.com/xuebinqin/DIS, IS-Net/train_valid_inference_main.py; github.com/SysCV/sam-hq, train/train.py
    "dis5k": PublicSet(
        (
            Split("train", "DIS-TR/im", "DIS-TR/gt"),
            Split("val", "DIS-VD/im", "DIS-VD/gt"),
            *(Split(f"DIS-TE{number}", f"DIS-TE{number}/im", f"DIS-TE{number}/gt") for number in (1, 2, 3, 4)),
        ),
        "its own terms of use, DIS5K-Dataset-Terms-of-Use.pdf in github.com/xuebinqin/DIS: no commercial use without "
        "the authors' permission",  # says github.com/ZhengPeng7/BiRefNet/issues/306
    ),
    # github.com/ViTAE-Transformer/P3M-Net, core/README.md; github.com/SHI-Labs/Matting-Anything, utils/config.py
    "p3m-10k": PublicSet(
        (
            Split("train", "train/blurred_image", "train/mask"),
            Split("val", "validation/P3M-500-P/blurred_image", "validation/P3M-500-P/mask"),
            Split("P3M-500-NP", "validation/P3M-500-NP/original_image", "validation/P3M-500-NP/mask"),
        ),
        MIT,
    ),
    # github.com/JizhiziLi/GFM, core/README.md; github.com/SHI-Labs/Matting-Anything, utils/config.py
    "am-2k": PublicSet(
        (
            Split("train", "train/original", "train/mask"),
            Split("val", "validation/original", "validation/mask"),
        ),
        MIT,
    ),
    # github.com/JizhiziLi/AIM, core/README.md; github.com/kjk1208/SegTrimapH100, isegm/data/datasets/aim500.py
    "aim-500": PublicSet((Split("test", "original", "mask"),), MIT),
    # github.com/SHI-Labs/Matting-Anything, utils/config.py; github.com/jensonchou666/DPRNet,
    # jscv/datasets/matte/data_path.py. Licence: github.com/ZHKKKe/PPM, README.md
    "ppm-100": PublicSet(
        (Split("test", "image", "matte"),),
        "the mattes CC BY-NC-SA 4.0 (not for commercial use), the photos Creative Commons, from Flickr",
    ),
    # The archive has no composites: the authors' Composition_code.py makes them. Their folders, and where the alphas
    # lie: github.com/poppinace/indexnet_matting, README.md and lists/generate_imlist.py (Test_set/alpha);
    # github.com/open-mmlab/mmagic, tools/dataset_converters/comp1k/README.md (Test_set/Adobe-licensed images/alpha).
    # Licence: the README of indexnet_matting
    "composition-1k": PublicSet(
        (
            Split("train", "Training_set/merged", "Training_set/**/alpha"),
            Split("val", "Test_set/merged", "Test_set/**/alpha"),
        ),
        "Adobe's licence agreement, signed to get the set: not for commercial use, nor may models trained on it be",
        number=r"_\d+$",  # boy_3 is boy on its fourth background
    ),
    # github.com/WZMIAOMIAO/deep-learning-for-image-processing, pytorch_segmentation/u2net/my_dataset.py;
    # huggingface.co/spaces/jamino30/salient-style-transfer, u2net/download_data.sh, which unpacks the authors' archives
    "duts": PublicSet(
        (
            Split("train", "DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
            Split("val", "DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),
        ),
        "none that the authors name: for research; ask them before any other use",
    ),
    # One's own photos with trimaps instead of mattes.
    "trimaps": PublicSet(
        (Split("train", "train/im", "train/trimap"), Split("val", "val/im", "val/trimap")), "yours", has_trimaps=True
    ),
}
