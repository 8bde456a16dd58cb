"""Invariants of the network: identity at the start, sizes, batches, who gets gradients, what a tile sees."""

from __future__ import annotations

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from common.errors import UserError
from common.resize import resize_alpha
from losses import matting_losses, teacher_losses, weighted
from models import build_model, build_teacher
from models.checkpoint import MODEL_FILE, load_model, save_model
from models.encoder import Encoder, FittedBlock
from models.matting_network import saturating_sigmoid
from models.octaves import climb, octave_sizes
from models.refiner import Refiner, colour_alpha, gradient_map, uncertainty

TINY = "swin_tiny_patch4_window7_224"
WEIGHTS = dict(bce=1.0, l1=1.0, gradient=1.0, laplacian=0.5, edge=1.0, alignment=1.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(backbone=TINY, image_size=64).eval()


def awake(refiner: Refiner) -> Refiner:
    """A refiner that has left its identity start."""
    torch.nn.init.normal_(refiner.head.weight, std=0.3)
    return refiner


def test_refined_is_coarse_at_initialization_bit_for_bit(model):
    output = model(torch.rand(2, 3, 64, 96))
    assert torch.equal(output.refined_alpha, output.coarse_alpha)
    assert output.coarse_alpha.std() > 0


def test_refiner_cannot_move_a_sure_pixel():
    refiner = awake(Refiner())
    coarse = torch.rand(1, 1, 40, 40)
    coarse[..., :20], coarse[..., 20:30] = 0.0, 1.0
    with torch.no_grad():
        refined = refiner(torch.rand(1, 3, 40, 40), coarse)
    assert torch.equal(refined[..., :30], coarse[..., :30])
    assert not torch.equal(refined[..., 30:], coarse[..., 30:])


def test_what_the_ablation_switches_off_is_off():
    image, sure = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    unsure = torch.full((1, 1, 32, 32), 0.5)
    with torch.no_grad():
        assert not torch.equal(Refiner(smart_init=False)(image, unsure), unsure)
        assert torch.equal(Refiner(smart_init=False)(image, sure), sure)
        assert not torch.equal(Refiner(smart_init=False, use_attention=False)(image, sure), sure)


@pytest.mark.parametrize("use_colours", [True, False])
def test_receptive_radius_is_as_stated(use_colours):
    """What moves the middle pixel: any change of a pixel at that distance, and none of one further away."""
    refiner, seen = awake(Refiner(use_colours=use_colours)).double(), []
    refiner.head.register_forward_hook(lambda module, inputs, output: seen.append(output[0, 0, 30, 30].item()))
    image = torch.rand(1, 3, 61, 61, dtype=torch.double)
    coarse = 0.2 + 0.6 * torch.rand(1, 1, 61, 61, dtype=torch.double)

    def moves(distance: int) -> bool:
        """Whether the middle feels a change of the frame of pixels that far away, in the photo and in the matte."""
        frame = torch.zeros(61, 61, dtype=torch.bool)
        frame[30 - distance : 31 + distance, 30 - distance : 31 + distance] = True
        frame[31 - distance : 30 + distance, 31 - distance : 30 + distance] = False
        seen.clear()
        with torch.no_grad():
            for photo, matte in (
                (image, coarse),
                (torch.where(frame, 1 - image, image), coarse),
                (image, torch.where(frame, 1 - coarse, coarse)),
            ):
                refiner.delta(photo, matte)
        return seen[0] != seen[1] or seen[0] != seen[2]

    assert moves(refiner.receptive_radius)  # a halo any smaller would show seams
    assert not any(moves(distance) for distance in range(refiner.receptive_radius + 1, 31))


def test_colours_find_an_edge_that_the_coarse_matte_only_knows_roughly():
    """Red before blue, half and half at the border: where both colours are near, the compositing equation is solved."""
    true = torch.zeros(1, 1, 20, 40)
    true[..., 20:], true[..., 19] = 1.0, 0.5
    red, blue = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ((0.9, 0.1, 0.1), (0.1, 0.1, 0.9)))
    image = true * red + (1 - true) * blue
    coarse = (torch.arange(40) - 8).div(24).clamp(0, 1).expand(1, 1, 20, 40)  # a ramp of 24 pixels
    estimate = colour_alpha(image, coarse)
    band = slice(14, 26)
    assert (estimate - true)[..., band].abs().max() < 0.15 < (coarse - true)[..., band].abs().max()
    torch.testing.assert_close(colour_alpha(blue.expand_as(image), coarse), coarse, atol=0.02, rtol=0)
    for sure in (torch.zeros_like(true), torch.ones_like(true)):
        assert colour_alpha(image, sure).isfinite().all()


@pytest.mark.parametrize("side", [56, 96, 112, 224])
def test_the_windows_fit_the_map_as_in_timm_s_network_of_that_size(side):
    """On ImageNet no window is larger than its map, and one that spans the map does not shift."""
    torch.manual_seed(0)
    ours = Encoder(TINY).backbone.eval()
    theirs = timm.create_model(TINY, features_only=True, img_size=side).eval()
    state, places = ours.state_dict(), torch.arange(-6, 7)
    for name, value in theirs.state_dict().items():
        if value.shape != state[name].shape:  # timm's table of a smaller window: the middle of the full one
            reach = round(len(value) ** 0.5) // 2
            near = (places.abs() <= reach)[:, None] & (places.abs() <= reach)
            state[name] = state[name][near.flatten()]
    theirs.load_state_dict(state)
    photos = torch.randn(2, 3, side, side)
    with torch.no_grad():
        for own, other in zip(ours(photos), theirs(photos), strict=True):
            torch.testing.assert_close(own, other)


def test_windows_that_fit_change_nothing_in_maps_larger_than_them():
    torch.manual_seed(0)
    block = next(part for part in Encoder(TINY).modules() if isinstance(part, FittedBlock) and any(part.shift_size))
    maps = torch.randn(2, 16, 9, block.dim)
    with torch.no_grad():
        torch.testing.assert_close(block._attn(maps), SwinTransformerBlock._attn(block, maps), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(64, 64), (333, 517), (1, 1), (2000, 40)])
def test_any_size_comes_back_in_its_own_size(model, size):
    with torch.no_grad():
        output = model(torch.rand(1, 3, *size))
        taught = build_teacher(model, backbone=TINY)(torch.rand(1, 1, *size))
    assert output.coarse_alpha.shape == output.refined_alpha.shape == taught.coarse_alpha.shape == (1, 1, *size)
    assert output.refined_alpha.isfinite().all() and taught.refined_alpha is None


def test_a_batch_equals_its_singles(model):
    awake(model.refiner)
    images = torch.rand(3, 3, 70, 50)
    with torch.no_grad():
        together = model(images).refined_alpha
        apart = torch.cat([model(image[None]).refined_alpha for image in images])
    torch.nn.init.zeros_(model.refiner.head.weight)
    # rounding in the coarse matte grows by up to 1 / COLOUR_DOUBT where, as in this noise, all colours are alike
    torch.testing.assert_close(together, apart, atol=2e-3, rtol=0)


def test_every_parameter_gets_a_finite_gradient(model):
    model.zero_grad()
    awake(model.refiner)  # at exactly zero, the layers before the head have none in the first step
    autoencoder = build_teacher(model, backbone=TINY)
    alpha = torch.rand(2, 1, 64, 64)
    weighted(teacher_losses(autoencoder(alpha), alpha, WEIGHTS), WEIGHTS)["loss"].backward()
    weighted(matting_losses(model(torch.rand(2, 3, 64, 64)), alpha, WEIGHTS), WEIGHTS)["loss"].backward()
    torch.nn.init.zeros_(model.refiner.head.weight)
    for name, parameter in (*model.named_parameters(), *autoencoder.named_parameters()):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or "relative_position" in name, name


def test_bfloat16_gradients_are_those_of_float32(model):
    """oneDNN's weight gradient of dilated convolutions is wrong for some widths; these must not be among them."""
    torch.manual_seed(0)
    refiner = awake(Refiner())
    image, coarse = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    gradients = []
    for half in (False, True):
        refiner.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            delta = refiner.delta(image, coarse)
        (delta * torch.linspace(-1, 1, 64)).mean().backward()
        gradients.append([parameter.grad.clone() for parameter in refiner.parameters() if parameter.ndim > 1])
    for full, half in zip(*gradients, strict=True):
        assert (full - half).norm() < 0.1 * full.norm()


def test_alignment_sends_no_gradient_into_the_teacher(model):
    """Nor into features in whose gradients somebody is interested."""
    autoencoder = build_teacher(model, backbone=TINY)
    alpha = torch.rand(1, 1, 64, 64)
    targets = [feature.requires_grad_() for feature in autoencoder.targets(alpha)]
    model.zero_grad()
    output = model(torch.rand(1, 3, 64, 64))
    matting_losses(output, alpha, {"alignment"}, None, targets)["", "alignment"].backward()
    assert all(feature.grad is None for feature in targets)
    assert all(parameter.grad is None for parameter in autoencoder.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.student.parameters() if parameter.grad is not None)


def test_a_student_that_starts_as_its_teacher_sees_a_grey_photo_as_the_teacher_sees_an_alpha():
    model = build_model(backbone=TINY, image_size=64).eval()
    autoencoder = build_teacher(model, backbone=TINY).eval()
    autoencoder.start_student(model)
    grey = torch.rand(1, 1, 64, 64)
    image = model.student.mean + (grey - 0.5) / 0.5 * model.student.std  # both normalize: equal after it
    with torch.no_grad():
        for seen, truth in zip(model.student(image), autoencoder.encoder(grey), strict=True):
            torch.testing.assert_close(seen, truth, atol=1e-4, rtol=0)
        torch.testing.assert_close(model(image).coarse_alpha, autoencoder(grey).coarse_alpha, atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_from_a_smaller_view_the_refiner_climbs_every_octave(model, scale):
    image = torch.rand(1, 3, 64, 64)
    view = torch.rand(1, 3, 64 // scale, 64 // scale)
    output = model(image, view)
    assert output.coarse_logits.shape[-2:] == view.shape[-2:]
    assert [octave.shape[-1] for octave in output.octaves] == [64 // 2**k for k in range(scale.bit_length())][::-1]
    assert torch.equal(output.refined_alpha, output.coarse_alpha)  # smart initialization, through all octaves
    assert output.coarse_alpha.std() > 0


@pytest.mark.parametrize(
    ("native", "working", "expected"),
    [
        ((800, 600), (96, 72), [(100, 75), (200, 150), (400, 300), (800, 600)]),
        ((64, 64), (64, 64), [(64, 64)]),
        ((40, 30), (64, 48), [(40, 30)]),
        ((127, 64), (64, 32), [(64, 32), (127, 64)]),
        ((126, 64), (64, 32), [(126, 64)]),
        ((3, 1), (1, 1), [(1, 1), (2, 1), (3, 1)]),
    ],
)
def test_octaves_are_native_size_halved_down_to_the_working_size(native, working, expected):
    assert octave_sizes(native, working) == expected


def test_attention_holds_at_every_octave():
    """A pixel that is 0 or 1 in the interpolated alpha stays so."""
    seen = []

    def refine(photo: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        refined = refiner(photo, alpha)
        seen.append((alpha, refined))
        return refined

    refiner, alpha = awake(Refiner()), torch.zeros(1, 1, 16, 16)
    alpha[..., 8:] = 1.0
    alpha[..., 6:10] = torch.rand(1, 1, 16, 4)
    with torch.no_grad():
        climb(torch.rand(1, 3, 64, 64), alpha, refine)
    assert len(seen) == 3
    for before, after in seen:
        sure = (before == 0) | (before == 1)
        assert sure.any() and torch.equal(after[sure], before[sure]) and not torch.equal(after, before)


def test_without_octaves_the_refiner_jumps_from_the_student_s_size_to_the_photo_s():
    torch.manual_seed(0)
    network = build_model(backbone=TINY, image_size=32, use_octaves=False).eval()
    awake(network.refiner)
    image, view = torch.rand(1, 3, 128, 96), torch.rand(1, 3, 32, 24)
    with torch.inference_mode():
        output = network(image, view)
        jumped = network.refiner(image, resize_alpha(network.working_alpha(view), (128, 96)))
    assert len(output.octaves) == 1 and torch.equal(output.refined_alpha, jumped)


def test_sure_can_mean_sure():
    alpha = saturating_sigmoid(torch.tensor([-30.0, -5.0, 0.0, 5.0, 30.0]))
    assert alpha.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert uncertainty(alpha).tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_gradient_map_is_zero_on_flat_and_one_at_a_full_step():
    flat = gradient_map(torch.full((1, 3, 8, 8), 0.3))
    step = gradient_map(torch.cat([torch.zeros(1, 3, 8, 4), torch.ones(1, 3, 8, 4)], dim=-1))
    assert flat.abs().max() < 1e-5
    assert step.max().item() == pytest.approx(1.0, abs=1e-5)


def test_without_a_network_one_sentence_names_the_options(monkeypatch, tmp_path):
    asked = []

    class NoNetwork:
        def head(self, url, timeout):
            asked.append(url)
            raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_session", NoNetwork)
    with pytest.raises(UserError) as raised:
        build_model(backbone=TINY, image_size=32, pretrained=True)
    assert len(asked) == 1  # asked once, not again and again
    for way in ("connect to the network", "--backbone-weights", "--no-pretrained", "--no-use-teacher"):
        assert way in str(raised.value)


def test_weights_in_the_cache_need_no_network(monkeypatch, tmp_path):
    source = timm.create_model(TINY, pretrained=False).state_dict()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(source, path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(path))
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: pytest.fail("asks the network"))
    swin = build_model(backbone=TINY, image_size=32, pretrained=True).student.backbone
    assert torch.equal(swin.state_dict()["patch_embed.proj.weight"], source["patch_embed.proj.weight"])


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "does not exist"),
        (b"not a weight file", "not a readable weight file"),
        ({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, "lacks 160 weights of swin_tiny.* as patch_embed.proj"),
        ({"state_dict": {"backbone.patch_embed.proj.weight": torch.zeros(96, 3, 4, 4)}}, "lacks 160 weights"),
        ({"model": {}}, "holds no weights by name"),
        ([torch.zeros(1)], "holds no weights by name"),
        ({"layers.2.blocks.6.norm1.weight": torch.ones(384)}, "holds 1 weights that swin_tiny.*no place for"),
    ],
    ids=["missing", "broken", "another network", "prefixed", "empty", "no names", "a deeper one"],
)
def test_weights_of_something_else_are_refused_instead_of_a_random_start(monkeypatch, tmp_path, content, words):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("asks the hub"))
    path = tmp_path / "other.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        is_deeper = "no place" in words  # Tiny has blocks 0 to 5 there, Small 18 of them
        torch.save(timm.create_model(TINY).state_dict() | content if is_deeper else content, path)
    with pytest.raises(UserError, match=words) as raised:
        build_model(backbone=TINY, image_size=32, backbone_weights=str(path))
    assert "other.pth" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("naming", ["timm", "official"])
def test_local_backbone_weights_load_in_both_namings(tmp_path, naming):
    source = timm.create_model(TINY, pretrained=False)
    state = source.state_dict()
    if naming == "official":  # downsampling belongs to the end of a stage there, and the file nests under "model"
        moved = {f"layers.{i + 1}.downsample": f"layers.{i}.downsample" for i in range(3)}
        renamed = {}
        for name, value in state.items():
            prefix = next((new for new in moved if name.startswith(new)), None)
            renamed[name.replace(prefix, moved[prefix]) if prefix else name.replace("head.fc.", "head.")] = value
        state = {"model": renamed}
    torch.save(state, tmp_path / "swin.pth")
    weights = str(tmp_path / "swin.pth")
    model = build_model(backbone=TINY, image_size=32, backbone_weights=weights)
    autoencoder = build_teacher(model, backbone=TINY, backbone_weights=weights)
    expected = source.layers[2].downsample.reduction.weight
    assert torch.equal(model.student.get_parameter("backbone.layers_2.downsample.reduction.weight"), expected)
    assert autoencoder.encoder.backbone.patch_embed.proj.weight.shape[1] == 1


def test_an_encoder_of_ones_own_starts_both_twins(tmp_path):
    source = build_model(backbone=TINY, image_size=32, use_refiner=False)
    save_model(tmp_path / MODEL_FILE, source, model_options={}, config={}, scores={})
    weights = str(tmp_path / MODEL_FILE)
    model = build_model(backbone=TINY, image_size=32, backbone_weights=weights)
    autoencoder = build_teacher(model, backbone=TINY, backbone_weights=weights)
    for own, theirs in zip(source.student.backbone.parameters(), model.student.backbone.parameters(), strict=True):
        assert torch.equal(own, theirs)
    name = "backbone.layers_2.blocks.0.mlp.fc1.weight"
    assert torch.equal(autoencoder.encoder.state_dict()[name], source.student.state_dict()[name])
    assert not torch.equal(model.decoder.head.weight, source.decoder.head.weight)


CONVNEXT = dict(backbone="convnext_atto", image_size=64)  # the smallest of the family


def test_another_family_is_a_row_of_the_table(tmp_path):
    """ConvNeXt: maps of strides 4 to 32 at any size, gradients everywhere, and its own file rebuilds it."""
    torch.manual_seed(0)
    model = build_model(**CONVNEXT, drop_path=0.1)
    torch.nn.init.normal_(model.refiner.head.weight, std=0.1)
    output = model(torch.rand(2, 3, 70, 97))
    assert [f.shape[1:] for f in output.features] == [(40 << i, 24 >> i, 32 >> i) for i in range(4)]
    assert output.refined_alpha.shape == (2, 1, 70, 97)
    (output.refined_alpha.mean() + output.coarse_logits.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    save_model(tmp_path / "best.safetensors", model, model_options=CONVNEXT, config={}, scores={})
    loaded, photo = load_model(tmp_path / "best.safetensors"), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().to(memory_format=torch.channels_last)(photo).refined_alpha
        assert torch.equal(loaded(photo).refined_alpha, expected)


def test_another_family_starts_from_its_file_as_student_and_teacher_and_learns_in_less_memory(tmp_path):
    source = timm.create_model("convnext_atto")
    torch.save(source.state_dict(), tmp_path / "convnext.pth")
    weights = dict(pretrained=True, backbone_weights=str(tmp_path / "convnext.pth"))
    model = build_model(**CONVNEXT, **weights)
    own = model.student.get_parameter("backbone.stages_2.blocks.3.mlp.fc1.weight")
    assert torch.equal(own, source.get_parameter("stages.2.blocks.3.mlp.fc1.weight"))
    teacher = build_teacher(model, backbone="convnext_atto", **weights)
    assert teacher(torch.rand(1, 1, 40, 64)).coarse_alpha.shape == (1, 1, 40, 64)
    photo, gradients = torch.rand(1, 3, 64, 64), []
    for _ in range(2):
        model.zero_grad()
        model.working_alpha(photo).sum().backward()
        gradients.append(own.grad.clone())
        model.student.set_gradient_checkpointing()
    torch.testing.assert_close(*gradients)


def test_files_of_before_there_were_families_still_load():
    model = build_model(backbone=TINY, image_size=32)
    state = {name.replace("student.backbone.", "student.swin."): value for name, value in model.state_dict().items()}
    assert state.keys() != model.state_dict().keys()
    build_model(backbone=TINY, image_size=32).load_state_dict(state)
