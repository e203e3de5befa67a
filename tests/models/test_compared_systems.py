"""Every named model learns, is saved, comes back and recognises a clip; the compared systems are what they say."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinegru.errors import KineGRUError, ModelFileError, UsageError
from kinegru.models import create_model, list_models, load_model, save_model
from kinegru.models.compared.stc_resnet import STCResNet
from kinegru.models.compared.streams import CHANNELS, StreamsEncoder
from kinegru.recognition.recognizer import Recognizer
from kinegru.video import motion
from kinegru.video.loading import load_clip
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

THREE_D = ("stc_resnet18", "stc_resnet101")


def built(name: str, classes: int = 3, **options):
    """A named model with a small frame CNN; the 3-D networks as they are."""
    small = {} if name in THREE_D else {"backbone": "mobilenetv2_050", "hidden_channels": 6, "width": 8}
    torch.manual_seed(0)
    return create_model(name, classes, **({"dropout": 0.0} | small | options))


def clips_for(model, n: int = 2, t: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(n, t, model.encoder.in_channels, size, size) * 2 - 1


def loss_of(model, frames: torch.Tensor) -> torch.Tensor:
    logits = model(frames)
    targets = torch.arange(len(frames)) % model.num_classes
    each = logits if logits.dim() == 3 else logits[:, None]
    return torch.nn.functional.cross_entropy(each.flatten(0, 1), targets.repeat_interleave(each.shape[1]))


@pytest.mark.parametrize("name", list_models())
def test_every_model_learns_is_saved_and_recognises_a_clip(name: str, tmp_path: Path) -> None:
    model = built(name).train()
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    size = 32 if name == "stc_resnet101" else 64
    loss = loss_of(model, clips_for(model, t=3, size=size))
    loss.backward()
    assert loss.isfinite()
    for key, parameter in model.named_parameters():
        silent = "_branch." in key and key.endswith(".bias")  # before a batch norm
        reached = parameter.grad is not None and (silent or parameter.grad.abs().max() > 0)
        assert reached != (key in frozen), key
    torch.optim.SGD(model.trained_parameters(), lr=0.1).step()
    changed = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    assert not changed & frozen and "classifier.output" in " ".join(changed)
    preprocessing = Preprocessing.from_dict(model.preprocessing_defaults | {"frames": 2, "size": size})
    path = save_model(tmp_path / "model.safetensors", model, ["a", "b", "c"], preprocessing.to_dict())
    recognizer = Recognizer.load(tmp_path, "cpu")
    path.unlink()  # one has 380 MB
    frames = load_clip(example_clip(), preprocessing)[None]
    with torch.inference_mode():
        logits = model.eval()(frames)
        assert torch.equal(recognizer.model(frames), logits)
    prediction = recognizer.predict(example_clip())
    assert torch.allclose(torch.from_numpy(prediction.scores), logits[0].double().softmax(dim=0), atol=1e-6)


@pytest.mark.parametrize(
    ("streams", "channels"),
    [
        ("rgb", 3),
        ("flow", 20),
        ("saliency", 1),
        ("rgb+flow", 23),
        ("energy", 3),
        ("rgb+sg3i", 6),
        ("flow+saliency+rgb", 24),
    ],
)
def test_streams_are_options_of_two_stream(streams: str, channels: int) -> None:
    model = built("two_stream", streams=streams)
    frames = clips_for(model)
    assert frames.shape[2] == channels
    assert model.train()(frames).shape == (2, streams.count("+") + 1, 3) and model.eval()(frames).shape == (2, 3)
    preprocessing = Preprocessing.from_dict(model.preprocessing_defaults)
    assert "+".join(preprocessing.modalities) == streams and preprocessing.channels == channels
    with pytest.raises(ValueError, match=f"expected \\(N, T, {channels}, S, S\\)"):
        model(torch.rand(1, 1, channels + 1, 64, 64))
    assert model.encoder.radius == 0  # what live use asks


def test_video_and_models_mean_the_same_channels() -> None:
    assert CHANNELS == motion.CHANNELS


def test_the_spatial_stream_is_tsn() -> None:
    spatial, tsn = built("two_stream", streams="rgb").eval(), built("tsn_xception").eval()
    state = tsn.state_dict()
    spatial.load_state_dict({key.replace("output", "output.0"): value for key, value in state.items()})
    frames = clips_for(tsn)
    torch.testing.assert_close(spatial(frames).softmax(dim=1), tsn(frames).softmax(dim=1))
    assert spatial.cache_fingerprint() == tsn.cache_fingerprint()  # their cached features are the same


def test_a_stream_sees_and_teaches_its_own_network_alone() -> None:
    model = built("sts").set_profile("full").train()
    frames = clips_for(model, t=1)
    logits = model(frames)
    for stream, name in enumerate(model.encoder.streams):
        gradients = torch.autograd.grad(
            logits[:, stream].square().sum(), list(model.parameters()), retain_graph=True, allow_unused=True
        )
        reached = {
            key for (key, _), g in zip(model.named_parameters(), gradients, strict=True)
            if g is not None and g.abs().max() > 0
        }  # fmt: skip
        mine = {key for key, _ in model.named_parameters() if f"parts.{stream}." in key or f"output.{stream}." in key}
        assert reached == mine, name


def test_encoders_side_by_side_are_each_alone() -> None:
    torch.manual_seed(0)
    encoder = StreamsEncoder(["flow", "rgb"], backbone="xception_small", excitation="ste").eval()
    frames = torch.rand(2, 3, 23, 48, 48)
    maps = encoder(frames)
    start = 0
    for part, (channels, width) in enumerate(zip([20, 3], encoder.stream_channels, strict=True)):
        own = frames[:, :, start : start + channels]
        alone = encoder.neck.parts[part](encoder.trunk.parts[part](own.flatten(0, 1)).unflatten(0, (2, 3)))
        torch.testing.assert_close(maps[:, :, width * part : width * (part + 1)], alone)
        start += channels
    modules = [module for part in range(2) for module in (*encoder.trunk.parts[part], *encoder.neck.parts[part].tail)]
    assert list(encoder.items().values()) == modules and next(iter(encoder.items())) == "flow.conv1"


def test_flow_stems_come_from_the_rgb_weights(weights_file: Path) -> None:
    model = built("sts", backbone_weights=str(weights_file))
    tensors = load_file(weights_file)
    rgb, flow, saliency = (part.conv_stem for part in model.encoder.trunk.parts)
    grey = tensors["conv_stem.weight"].mean(dim=1, keepdim=True)
    assert torch.equal(rgb.weight, tensors["conv_stem.weight"])
    torch.testing.assert_close(flow.weight, grey.expand(-1, 20, -1, -1) * 3 / 20)
    torch.testing.assert_close(saliency.weight, grey * 3)
    plane = torch.rand(2, 1, 64, 64)  # equal planes give what the grey picture gives
    expected = rgb(plane.expand(-1, 3, -1, -1))
    torch.testing.assert_close(flow(plane.expand(-1, 20, -1, -1)), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(saliency(plane), expected, atol=1e-5, rtol=1e-4)
    for part in model.encoder.trunk.parts:  # all else is the file's
        own = part.state_dict()
        assert torch.equal(own["bn1.running_mean"], tensors["bn1.running_mean"])
    assert {name.split(".")[0] for name in model.encoder.keep_statistics} == {"rgb", "flow", "saliency"}
    again = create_model(model.name, 3, **model.options)  # as a model file builds it
    assert again.encoder.keep_statistics == model.encoder.keep_statistics and again.options == model.options


def test_random_stems_keep_the_scale_and_are_no_copies() -> None:
    model = built("two_stream")
    rgb, flow = (part.conv_stem.weight for part in model.encoder.trunk.parts)
    assert flow.std().item() == pytest.approx(rgb.std().item() * (3 / 20) ** 0.5, rel=0.1)
    assert not torch.equal(flow[:, 0], flow[:, 1])


@pytest.mark.parametrize("profile", ["head", "tail"])
def test_streams_train_from_the_cache(profile: str) -> None:
    model = built("two_stream").set_profile(profile).eval()
    frames = clips_for(model)
    maps = model.cacheable(frames)
    torch.testing.assert_close(model.from_cache(maps), model(frames))
    other = built("two_stream", flow_weight=1.0).set_profile(profile)
    assert other.cache_fingerprint() == model.cache_fingerprint()
    with torch.no_grad():
        other.encoder.trunk.parts[1].conv_stem.weight[0, 0, 0, 0] += 1
    assert other.cache_fingerprint() != model.cache_fingerprint()


def test_streams_may_meet_before_the_classifier() -> None:
    """The paper's model on RGB and flow: their maps are joined, everything behind sees both."""
    model = built("sc_xception_convgru_mcam_aff", streams="rgb+flow")
    assert model.temporal.convgru.in_channels == sum(model.encoder.stream_channels) == 2560
    assert model.train()(clips_for(model)).shape == (2, 3)


def test_reset_classifier_replaces_the_layer_of_every_stream() -> None:
    model = built("two_stream")
    model.reset_classifier(7)
    assert model.num_classes == 7 and model.train()(clips_for(model)).shape == (2, 2, 7)
    assert model.eval()(clips_for(model)).shape == (2, 7)


def test_lrcn_averages_the_scores_of_its_steps() -> None:
    model = built("lrcn").eval()
    features = torch.rand(2, 5, model.encoder.out_channels, 3, 3)
    states, _ = model.temporal.rnn(features.mean(dim=(3, 4)))  # (N, T, hidden)
    steps = model.classifier.output(states)  # (N, T, K)
    torch.testing.assert_close(model.head(features), steps.mean(dim=1))
    assert create_model("lrcn", 2, backbone="xception_small").temporal.out_channels == 256


@pytest.mark.parametrize(
    ("name", "blocks", "widths", "without"),
    [  # torchvision's networks without classifier; r3d_18 has 33,371,472 with 400 classes
        ("stc_resnet18", (2, 2, 2, 2), (64, 128, 256, 512), 33_371_472 - 400 * 513),
        ("stc_resnet101", (3, 4, 23, 3), (256, 512, 1024, 2048), 85_207_488),
    ],
)
def test_stc_resnets_have_their_size(name: str, blocks, widths, without: int) -> None:
    model = built(name, classes=4).eval()
    branches = sum(n * 2 * (2 * c * (c // 16) + c // 16 + c) for n, c in zip(blocks, widths, strict=True))
    assert sum(p.numel() for p in model.encoder.parameters()) == without + branches
    channels = widths[-1]
    assert model.encoder.out_channels == channels and model.preprocessing_defaults["size"] == 112
    with torch.inference_mode():
        assert model.neck(torch.rand(1, 9, 3, 32, 32)).shape == (1, 2, channels, 2, 2)


def test_a_3d_network_takes_any_clip_and_caches_nothing_short_of_itself() -> None:
    model = built("stc_resnet18")
    assert model.cache_stage is None and model.cache_fingerprint() == "" and model.encoder.radius is None
    with pytest.raises(UsageError, match="profile tail trains the whole model"):
        model.cacheable(clips_for(model))
    for t in (1, 2, 7):
        assert model.train()(clips_for(model, t=t, size=40)).shape == (2, 3)
    model.set_profile("head").eval()
    frames = clips_for(model, t=5, size=32)
    assert model.cache_stage == "neck"
    torch.testing.assert_close(model.from_cache(model.cacheable(frames)), model(frames))


def test_a_3d_network_sees_order_and_all_frames() -> None:
    model = built("stc_resnet18").eval()
    frames = clips_for(model, n=1, t=6, size=32).requires_grad_()
    model(frames).square().sum().backward()
    assert (frames.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    with torch.inference_mode():
        assert not torch.allclose(model(frames.flip(1)), model(frames), rtol=1e-3)


def test_torchvisions_weights_fit_a_3d_network(tmp_path: Path) -> None:
    """Keys as in torchvision's r3d_18 file, classifier included; only the STC blocks are new."""
    source = STCResNet("stc_resnet18")
    tensors = {k: v for k, v in source.neck.net.state_dict().items() if ".temporal." not in k and ".spatial." not in k}
    path = tmp_path / "r3d_18.safetensors"
    save_file(tensors | {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)}, path)
    model = built("stc_resnet18", backbone_weights=str(path))
    report = model.encoder.report
    assert set(report.unexpected) == {"fc.weight", "fc.bias"} and len(report.missing) == 8 * 8
    assert {key.split(".")[-3] for key in report.missing} == {"temporal", "spatial"}
    stem = model.encoder.neck.net.stem
    assert torch.equal(stem[0].weight, tensors["stem.0.weight"]) and not model.train().encoder.neck.net.stem[1].training
    again = create_model(model.name, 3, **model.options)
    assert again.encoder.keep_statistics == ("stem", "layer1", "layer2", "layer3", "layer4")
    save_file({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="keys must be torchvision's"):
        built("stc_resnet18", backbone_weights=str(path))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: built("stc_resnet18", backbone_weights="imagenet"), "no ImageNet weights"),
        (lambda: built("stc_resnet18", streams="rgb+flow"), "takes no streams"),
        (lambda: built("stc_resnet18", excitation="ste"), "takes no excitation"),
        (lambda: STCResNet("stc_resnet50"), "stc_resnet18 or stc_resnet101"),
        (lambda: built("two_stream", streams="rgb+depth"), "join rgb, flow, saliency, energy"),
        (lambda: built("two_stream", temporal="lstm"), "give temporal mean"),
        (lambda: built("two_stream", flow_weight=0.0), "above 0"),
        (lambda: built("stam", differences=True), "takes no differences"),
        (lambda: built("stam", kernel_size=4), "even"),
        (lambda: built("two_stream", backbone="convnextv2_atto", streams="flowrgb"), "join"),
    ],
)
def test_wrong_use_says_what_to_do(call, message: str) -> None:
    with pytest.raises(KineGRUError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_model_of_several_streams_comes_back_from_its_file(tmp_path: Path) -> None:
    model = built("sts", flow_weight=2.5, excitation="parallel")
    path = save_model(tmp_path / "m.safetensors", model, ["a", "b", "c"], model.preprocessing_defaults)
    loaded = load_model(path)
    frames = clips_for(model)
    assert torch.equal(loaded.model(frames), model.eval()(frames))
    assert loaded.model.options == model.options and loaded.preprocessing["modalities"] == ["rgb", "flow", "saliency"]
