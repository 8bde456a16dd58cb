"""Settings that belong together: `python train.py --recipe NAME`; a flag given with it still holds."""

from __future__ import annotations

from typing import Any

# What the recipes of the starter model share, and those of its student
STARTER: dict[str, Any] = dict(
    backgrounds=("Datasets/starter/backgrounds",),
    val_samples=32,
    pretrained=False,
    use_teacher=False,
    crop_scale_min=0.8,  # whole photos, as prediction shows them, and parts
)
STARTER_STUDENT: dict[str, Any] = STARTER | dict(
    foregrounds=("Datasets/starter/cutouts_renders*0.4", "Datasets/starter/cutouts*20"),
    use_refiner=False,
    train_samples=300,
    image_size=112,  # Swin's windows of 7 fit its maps of 28, 14, 7 and 4; 56 end worse in the same time
    crop_size=224,
    max_student_downscale=1,
    batch_size=32,
    lr_schedule="constant",  # so that it can be longer: the averaged weights are what a part hands on
    drop_path=0.1,  # each of 3500 masked photos is seen more than a hundred times
    weight_decay=0.05,
    ema_decay=0.998,  # 16,000 images
    validate_every=4,
)
STARTER_MORE: dict[str, Any] = STARTER_STUDENT | dict(
    dataset=(
        "synthetic",
        "Datasets/starter/real",
        "Datasets/starter/varied*2",
        "Datasets/starter/photos",
        "Datasets/starter/pseudo*0.6",  # more people and things than anybody has masked: inference.pseudo_labels
    ),
    crop_scale_max=1.4,  # closer to prediction's whole photos than the first part
    learning_rate=5e-4,
    encoder_lr_scale=0.5,
)

RECIPES: dict[str, dict[str, Any]] = {
    # DIS5K (3000 photos to train) from ImageNet weights on one GPU of 24 GB
    "dis5k-24gb": dict(
        image_size=1024,  # DIS5K is about thin structures: what is lost at the working size stays lost
        batch_size=4,  # 10.6 GB for Tiny (estimated); Base: --model-idx 2 --batch-size 2 --accumulation-steps 4
        accumulation_steps=2,  # an effective batch of 8
        epochs=100,  # 37,500 steps
        teacher_epochs=3,  # about 1000 steps, as IS-Net gives its own encoder of the truth (Qin et al., ECCV 2022)
        learning_rate=2e-4,
        encoder_lr_scale=0.25,  # the encoder is pretrained, decoder and refiner start from nothing
        drop_path=0.1,  # 3000 photos are few for a Swin, and 100 epochs are many
        ema_decay=0.999,  # an average over about three epochs
    ),
    # The same on 8 GPUs: torchrun --nproc-per-node 8 train.py --recipe dis5k-8gpu
    "dis5k-8gpu": dict(
        image_size=1024,
        batch_size=4,  # 32 photos per step: four times the batch, a quarter of the steps
        accumulation_steps=1,
        learning_rate=4e-4,  # AdamW: with the square root of the batch
        encoder_lr_scale=0.25,
        epochs=100,
        teacher_epochs=3,
        drop_path=0.1,
        ema_decay=0.996,  # the same three epochs, in fewer steps
        validate_every=5,  # to score 470 photos takes longer than an epoch does
    ),
    # The starter model, first part: the student alone, from random weights, with a guide. Datasets/starter holds
    # the sets that its model card names.
    "starter": STARTER_STUDENT
    | dict(
        dataset=(
            "synthetic",  # alone, each of these sets forgets the others
            "Datasets/starter/real",
            "Datasets/starter/varied*2",
            "Datasets/starter/photos",
            "Datasets/starter/unlabelled*0.2",  # all of a photo unknown: the guide teaches alone
        ),
        guide="tf_efficientnet_lite2",
        guide_weights="Datasets/starter/guide.safetensors",  # the model card says where they come from
        crop_scale_max=1.6,
        learning_rate=7e-4,  # no pretrained weights to keep
        epochs=30,  # 200,000 images
    ),
    # Its second part, on the best.safetensors of the first: --recipe starter-more --init-from RUN
    "starter-more": STARTER_MORE | dict(epochs=100),  # 700,000 images
    # Its third part, closer and with a falling rate: --recipe starter-larger --init-from RUN
    "starter-larger": STARTER_MORE
    | dict(
        image_size=168,  # fits windows of 7 in two of four stages
        crop_size=168,
        max_student_downscale=2,  # half of the batches at 84 pixels, so that --image-size is no cliff
        lr_schedule="cosine",
        ema_decay=0.99,  # the falling rate averages too
        epochs=4,  # 24,000 images
        validate_every=2,
    ),
    # Its last part, the refiner, on the average of the two parts before (experiments.weights):
    # --recipe starter-refiner --init-from AVERAGE
    "starter-refiner": STARTER
    | dict(
        dataset=(
            "synthetic",
            "Datasets/starter/real*0.5",
            "Datasets/starter/varied*0.5",
            "Datasets/starter/photos",
        ),
        foregrounds=("Datasets/starter/cutouts_renders*0.6", "Datasets/starter/cutouts*40"),
        train_samples=1200,  # half are drawn subjects and cut-outs: only they have a soft truth
        image_size=128,  # where a student of 112 and 168 pixels finds most
        crop_size=256,  # one octave above the student's view, or two where that is halved
        max_student_downscale=2,
        crop_scale_max=2.5,  # up to the photos' own pixels, where hair is sharp
        freeze_encoder_epochs=99,  # the refiner learns the mattes that it will be given; so the decoder hardly moves:
        learning_rate=2e-5,
        refiner_lr_scale=50.0,  # 1e-3
        batch_size=8,
        ema_decay=0.99,
        epochs=2,  # 1010 steps
    ),
    # Some hundred photos of one's own: --recipe fine-tune --init-from CHECKPOINT --dataset MINE
    "fine-tune": dict(
        learning_rate=2e-4,  # a tenth of it gains nothing in some hundred steps
        encoder_lr_scale=1.0,  # a kind that it has not seen must be found first, which is the encoder's work
        refiner_lr_scale=1.0,
        batch_size=8,
        max_student_downscale=1,
        use_teacher=False,  # a released file holds none, and a new one would have too few mattes to learn from
        epochs=30,
        early_stop_epochs=8,  # a small set is soon overfit
        ema_decay=0.99,  # some hundred photos make few steps: a longer average would still hold the start
    ),
}
