"""Where backbones are cut, what the two parts compute together, and how far they look in time."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinegru.errors import UsageError
from kinegru.models import FrameEncoder, encoders
from kinegru.models.backbones import Backbone, WeightsReport, import_timm

SMALL = "mobilenetv2_050"


@pytest.mark.parametrize(
    ("backbone", "start", "end", "trunk_channels", "channels"),
    [
        ("legacy_xception", "block12", "conv4", 728, 2048),
        ("mobilenetv2_050", "blocks.5", "bn2", 48, 1280),
        ("mobilenetv2_100", "blocks.5", "bn2", 96, 1280),
        ("resnet18", "layer4.0", "layer4.1", 256, 512),
        ("efficientnet_b0", "blocks.5", "bn2", 112, 1280),
        ("densenet121", "features.transition3", "features.norm5", 1024, 1024),
    ],
)
def test_the_tail_begins_with_the_last_halving(backbone, start, end, trunk_channels, channels):
    torch.manual_seed(0)
    encoder = FrameEncoder(backbone).eval()
    assert (encoder.resolved["tail_start"], encoder.resolved["tail_end"]) == (start, end)
    assert (encoder.trunk_channels, encoder.out_channels) == (trunk_channels, channels)
    torch.manual_seed(0)
    whole = import_timm().create_model(
        backbone, num_classes=0, **({"pad_type": "same"} if "mobilenet" in backbone else {})
    )
    frames = torch.rand(1, 2, 3, 96, 96)
    with torch.no_grad():
        expected = whole.eval().forward_features(frames[0])
        torch.testing.assert_close(encoder(frames)[0], expected, rtol=1e-3, atol=1e-5)
        assert encoder.trunk(frames[0]).shape[1] == trunk_channels


def test_xception_parameter_count_is_pinned():
    encoder = FrameEncoder("legacy_xception", excitation="parallel")
    excitation = sum(p.numel() for p in encoder.neck.excitation.parameters())
    tail = sum(p.numel() for p in encoder.neck.tail.parameters())
    trunk = sum(p.numel() for p in encoder.trunk.parameters())
    assert trunk + tail == 20_806_952 and excitation == 27 + 71_595
    assert (round(trunk / 1e6, 2), round(tail / 1e6, 2)) == (14.02, 6.79)


def test_shapes_at_299_pixels_are_the_papers():
    encoder = FrameEncoder("legacy_xception", excitation="parallel").eval()
    with torch.no_grad():
        maps = encoder.trunk(torch.rand(1, 3, 299, 299))
        assert maps.shape == (1, 728, 19, 19)
        assert encoder.neck(maps[None]).shape == (1, 1, 2048, 10, 10)


@pytest.mark.parametrize("backbone", ["inception_v3.tf_in1k", "mobilenetv2_050"])
def test_without_a_tail_the_trunk_is_everything(backbone):
    encoder = FrameEncoder(backbone, tail_start="none").eval()
    maps = torch.rand(1, 2, encoder.out_channels, 3, 3)
    assert torch.equal(encoder.neck(maps), maps) and not list(encoder.neck.parameters())
    assert encoder.trunk(torch.rand(1, 3, 96, 96)).shape[1] == encoder.trunk_channels == encoder.out_channels
    assert encoder.resolved["tail_start"] == "none"


class TwoPaths(torch.nn.Module):
    """A CNN whose children do not run one after the other."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.left, self.right = (torch.nn.Conv2d(3, 5, 3, stride=2) for _ in range(2))

    def forward_features(self, x):
        return self.left(x) + self.right(x)


def test_a_backbone_that_is_no_chain_is_trunk_as_a_whole(monkeypatch):
    net = TwoPaths()
    built = Backbone("two_paths", net, WeightsReport("file", matched=4), None, {"size": 32})
    monkeypatch.setattr(encoders, "build_backbone", lambda *_: built)
    encoder, frames = FrameEncoder("two_paths", excitation="ste"), torch.rand(2, 3, 32, 32)
    assert torch.equal(encoder.trunk(frames), net.forward_features(frames))
    assert (encoder.trunk_channels, encoder.out_channels, encoder.resolved["tail_start"]) == (5, 5, "none")
    assert encoder(frames[None]).shape == (1, 2, 5, 15, 15)
    with pytest.raises(UsageError, match="no chain"):
        FrameEncoder("two_paths", tail_start="right")


@pytest.mark.parametrize("mode", ["parallel", "serial", "ste", "ce", "none"])
def test_the_encoder_looks_at_its_radius_only(mode):
    torch.manual_seed(0)
    encoder = FrameEncoder(SMALL, excitation=mode, reduction=2).double().eval()
    for parameter in encoder.neck.excitation.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    frames = torch.rand(1, 7, 3, 64, 64, dtype=torch.float64)
    other = frames.clone()
    other[:, 3] = torch.rand(3, 64, 64)
    with torch.no_grad():
        trunk = (encoder.trunk(frames[0]) - encoder.trunk(other[0])).abs().amax(dim=(1, 2, 3))
        whole = (encoder(frames) - encoder(other)).abs().amax(dim=(0, 2, 3, 4))
    assert (trunk > 0).nonzero().flatten().tolist() == [3]
    assert encoder.radius == {"none": 0, "serial": 2}.get(mode, 1)
    assert (whole > 1e-12).nonzero().flatten().tolist() == list(range(3 - encoder.radius, 4 + encoder.radius))


def test_branch_excites_the_residual_branch_only():
    encoder = FrameEncoder("legacy_xception", excitation="parallel", tail_end="block12").eval()
    for parameter in encoder.neck.excitation.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    block, maps = encoder.neck.tail.block12, torch.randn(1, 3, 728, 5, 5)
    excited = encoder.neck.excitation(maps)[0]
    with torch.no_grad():
        assert encoder.resolved["excitation_place"] == "branch"
        branch = block.rep(excited) + block.skipbn(block.skip(maps[0]))
        torch.testing.assert_close(encoder.neck(maps)[0], branch, rtol=1e-4, atol=1e-5)
        encoder.neck.place = "block"
        torch.testing.assert_close(encoder.neck(maps)[0], block(excited), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(block(excited), branch, rtol=1e-2)


def neck_leaves_maps_alone(encoder: FrameEncoder) -> bool:
    maps = torch.randn(1, 2, encoder.trunk_channels, 4, 4)
    before = maps.clone()
    encoder.train().neck(maps)
    return torch.equal(maps, before)


@pytest.mark.parametrize(
    ("backbone", "mode"), [("legacy_xception", "parallel"), ("legacy_xception", "none"), (SMALL, "none")]
)
def test_the_neck_leaves_cached_maps_alone(backbone, mode):
    assert neck_leaves_maps_alone(FrameEncoder(backbone, excitation=mode))


def test_a_tail_that_begins_in_place_leaves_cached_maps_alone(monkeypatch):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(inplace=True), torch.nn.Conv2d(5, 6, 3))
    net.forward_features, net.num_features = net.forward, 6
    built = Backbone("chain", net, WeightsReport("none"), None, {"size": 32})
    monkeypatch.setattr(encoders, "build_backbone", lambda *_: built)
    encoder = FrameEncoder("chain", tail_start="1")
    assert len(encoder.neck.tail) == 2 and neck_leaves_maps_alone(encoder)


def test_the_tail_ends_where_the_weights_end(weights_file, tmp_path):
    tensors = {k: v for k, v in load_file(weights_file).items() if not k.startswith(("conv_head", "bn2"))}
    save_file(tensors, tmp_path / "short.safetensors")
    encoder = FrameEncoder(SMALL, str(tmp_path / "short.safetensors"))
    assert encoder.resolved["tail_end"] == "blocks.6" and encoder.out_channels == 160
    assert encoder.keep_statistics == ("bn1", *(f"blocks.{i}" for i in range(7)))
    asked = FrameEncoder(SMALL, str(tmp_path / "short.safetensors"), tail_end="bn2")
    assert asked.out_channels == 1280 and "bn2" not in asked.keep_statistics and asked.report.missing
    assert FrameEncoder(SMALL, str(weights_file)).keep_statistics[-1] == "bn2"
    assert FrameEncoder(SMALL).keep_statistics == ()


def test_wrong_cuts_and_backbones_without_maps_are_refused():
    for wrong, message in (
        ({"tail_start": "blocks.9"}, "to start the tail at: bn1, blocks.0"),
        ({"tail_end": "fc"}, "to end the tail at"),
        ({"place": "branch"}, "give block"),
        ({"place": "stem"}, "branch or block"),
        ({"backbone": "vit_tiny_patch16_224"}, "choose a CNN"),
        ({"backbone": "swin_tiny_patch4_window7_224"}, "choose a CNN"),
    ):
        with pytest.raises(UsageError, match=message):
            FrameEncoder(**({"backbone": SMALL} | wrong))


def test_shared_xception_weights_load_whole_and_the_tail_ends_at_block12(shared):
    path = shared / "weights" / "legacy_xception_imagenet_to_block12.safetensors"
    encoder = FrameEncoder("legacy_xception", str(path), excitation="parallel").eval()
    assert encoder.resolved["tail_end"] == "block12" and encoder.out_channels == 1024
    assert encoder.report.matched == 222 and encoder.report.unexpected == ()
    assert {key.split(".")[0] for key in encoder.report.missing} == {"conv3", "bn3", "conv4", "bn4"}
    net = import_timm().create_model("legacy_xception", num_classes=0).eval()
    net.load_state_dict(load_file(path), strict=False)
    frames = torch.rand(1, 1, 3, 96, 96) * 2 - 1
    with torch.no_grad():
        features, x = encoder(frames)[0], frames[0]
        for name, module in net.named_children():
            x = module(x)
            if name == "block12":
                break
    assert (features - x).norm() < 0.01 * x.norm()  # the excitation starts near the identity


@pytest.mark.parametrize("width", ["050", "100"])
def test_shared_mobilenet_weights_give_timms_features(shared, width):
    path = shared / "weights" / f"mobilenetv2_{width}_imagenet.safetensors"
    encoder = FrameEncoder(f"mobilenetv2_{width}", str(path)).eval()
    assert encoder.report.missing == encoder.report.unexpected == ()
    net = import_timm().create_model(f"mobilenetv2_{width}", pad_type="same", num_classes=0, checkpoint_path=str(path))
    frames = torch.rand(1, 2, 3, 96, 96) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames)[0], net.eval().forward_features(frames[0]), rtol=1e-3, atol=1e-3)
    assert encoder.preprocessing_defaults["interpolation"] == "bilinear"
    assert encoder.preprocessing_defaults["mean"][0] == pytest.approx(0.5, abs=0.01)
