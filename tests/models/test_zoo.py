"""Every name builds what its row says, from options that build it again."""

import json

import numpy as np
import pytest
import torch

from kinegru.errors import UsageError
from kinegru.models import create_model, list_models
from kinegru.models.backbones import build_backbone
from kinegru.models.zoo import ModelOptions, model_options

NAMES = [
    "sc_xception_convgru_mcam_aff",
    "sc_xception_convgru_aff",
    "sc_xception_convgru",
    "xception_convgru",
    "xception_lstm",
    "xception_gru",
    "tsn_xception",
    "inception_v3_convgru",
    "inception_resnet_v2_convgru",
    "mobilenet_convgru_mcam_aff",
    "lrcn",
    "two_stream",
    "stc_resnet18",
    "stc_resnet101",
    "sts",
    "stam",
]


def test_the_names_are_the_contracts():
    assert list_models() == NAMES
    assert list_models("*lstm*") == ["xception_lstm"] and list_models("none_*") == []


def test_the_papers_model_has_the_papers_parameters():
    model = create_model("sc_xception_convgru_mcam_aff", 101)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts == {
        "encoder": 20_806_952 + 27 + 71_595,
        "temporal": 2_255_160,
        "classifier": 10_496 + 65_792 + 390_208 + 257 * 101,
    }
    assert model.preprocessing_defaults["size"] == 299 and model.profile == "tail" and model.training


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sc_xception_convgru_mcam_aff", ("parallel", "convgru", 40, "mcam_aff")),
        ("sc_xception_convgru_aff", ("parallel", "convgru", 40, "aff")),
        ("sc_xception_convgru", ("parallel", "convgru", 40, "mlp")),
        ("xception_convgru", ("none", "convgru", 40, "linear")),
        ("xception_lstm", ("none", "lstm", 256, "linear")),
        ("xception_gru", ("none", "gru", 256, "linear")),
        ("tsn_xception", ("none", "mean", 40, "linear")),
        ("inception_v3_convgru", ("none", "convgru", 40, "linear")),
        ("inception_resnet_v2_convgru", ("none", "convgru", 40, "linear")),
        ("mobilenet_convgru_mcam_aff", ("parallel", "convgru", 40, "mcam_aff")),
        ("lrcn", ("none", "lstm", 256, "linear")),
        ("two_stream", ("none", "mean", 40, "late_fusion")),
        ("stc_resnet18", ("none", "mean", 40, "linear")),
        ("stc_resnet101", ("none", "mean", 40, "linear")),
        ("sts", ("none", "mean", 40, "late_fusion")),
        ("stam", ("none", "attention", 256, "linear")),
    ],
)
def test_each_name_is_its_row(small, name, parts):
    options = model_options(name)
    assert (options.excitation, options.temporal, options.hidden_channels, options.classifier) == parts
    readout, kernel = {"lrcn": "mean"}.get(name, "max"), {"stam": 7}.get(name, 3)
    assert (options.width, options.dropout, options.readout, options.kernel_size) == (256, 0.5, readout, kernel)
    assert options.streams == {"two_stream": "rgb+flow", "sts": "rgb+flow+saliency"}.get(name, "rgb")
    assert options.flow_weight == 1.5
    model = small(name).eval()
    assert model(torch.rand(2, 3, model.encoder.in_channels, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize(
    "name", ["inception_v3_convgru", pytest.param("inception_resnet_v2_convgru", marks=pytest.mark.slow)]
)
def test_inception_rows_are_trunk_as_a_whole(name):
    model = create_model(name, 3)
    channels = {"inception_v3_convgru": 2048, "inception_resnet_v2_convgru": 1536}[name]
    with torch.no_grad():
        maps = model.eval().cacheable(torch.rand(1, 1, 3, 299, 299))
    assert maps.shape == (1, 1, channels, 8, 8)
    assert not list(model.encoder.neck.parameters()) and model.preprocessing_defaults["size"] == 299


@pytest.mark.parametrize("backbone", ["inception_v3.tf_in1k", "inception_resnet_v2"])
def test_inceptions_from_scratch_are_drawn_alike(backbone):
    layers = [layer for layer in build_backbone(backbone).net.modules() if isinstance(layer, torch.nn.Conv2d)]
    scales = [float(layer.weight.detach().std()) * layer.weight[0].numel() ** 0.5 for layer in layers]
    assert len(layers) > 90 and all(scale == pytest.approx(3**-0.5, rel=0.1) for scale in scales)


def test_options_are_json_and_build_the_model_again(small, weights_file):
    model = small(
        "sc_xception_convgru_aff", backbone_weights=str(weights_file), attention_kernels=(3, 5), readout="mean"
    )
    options = json.loads(json.dumps(model.options))
    assert set(options) == set(ModelOptions.__dataclass_fields__) and options["backbone_weights"] == "none"
    assert str(weights_file.parent) not in json.dumps(options)
    again = create_model(model.name, 4, **options)
    again.load_state_dict(model.state_dict())
    assert again.options == model.options and again.encoder.keep_statistics == model.encoder.keep_statistics
    frames = torch.rand(1, 3, 3, 64, 64)
    assert torch.equal(again.eval()(frames), model.eval()(frames))


def test_every_option_changes_the_model_it_is_about(small):
    changes = {
        "pad_type": "", "tail_start": "blocks.6", "tail_end": "blocks.6", "excitation": "none",
        "excitation_rescale": False, "excitation_reduction": 4, "excitation_relu": False, "temporal": "lstm",
        "hidden_channels": 7, "kernel_size": 5, "variant": "reset_before", "update_bias_init": 1.0, "readout": "mean",
            "projection": 6,
        "differences": True, "classifier": "add", "classifier_on": "vectors", "width": 12, "attention_reduction": 2,
        "attention_kernels": (3,), "attention_global": "separate", "aff_scale": 2.0,
        "members": 2,
    }  # fmt: skip
    frames = torch.rand(1, 3, 3, 64, 64)

    def logits(**options):  # the seed is the same, and with it all weights whose shapes the option leaves alone
        return small(**options).eval()(frames)

    plain = logits()
    untested = {"backbone", "backbone_weights", "excitation_place", "dropout", "freeze_tail_bn"}  # tested elsewhere
    untested |= {"streams", "flow_weight"}  # tested with the compared systems
    assert set(changes) | untested == set(ModelOptions.__dataclass_fields__)
    for option, value in changes.items():
        assert not torch.equal(logits(**{option: value}), plain), option


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("sc_xception_convgru_mcam", 3), "did you mean sc_xception_convgru_mcam_aff"),
        (lambda: create_model("zzz", 3), "there are sc_xception"),
        (lambda: create_model("tsn_xception", 3, hidden=4), "did you mean hidden_channels"),
        (lambda: create_model("tsn_xception", 3, zzz=4), "there are backbone"),
        (lambda: create_model("tsn_xception", 3, temporal="rnn"), "convgru, lstm, gru, attention, mean"),
        (lambda: create_model("tsn_xception", 3, classifier="svm"), "mcam_aff, aff, add, mlp, linear"),
        (lambda: create_model("tsn_xception", 3, differences=True), "takes no differences"),
        (lambda: create_model("tsn_xception", 3, dropout=1.0), "not in"),
        (lambda: create_model("tsn_xception", 3, width=0), "at least 1"),
        (lambda: create_model("tsn_xception", 3, width="wide"), "type int"),
        (lambda: create_model("tsn_xception", 3, dropout="half"), "type float"),
        (lambda: create_model("tsn_xception", 3, differences=1), "type bool"),
        (lambda: create_model("tsn_xception", 3, attention_kernels=[2]), "odd numbers"),
        (lambda: create_model("tsn_xception", 3, pad_type="valid"), "same, an empty text"),
        (lambda: create_model("tsn_xception", 3, backbone="xceptoin"), "did you mean"),
        (lambda: create_model("mobilenet_convgru_mcam_aff", 0), "at least one class"),
        (lambda: create_model("mobilenet_convgru_mcam_aff", 2, excitation="all"), "parallel, serial"),
        (lambda: create_model("mobilenet_convgru_mcam_aff", 2, readout="first"), "last, mean, max"),
        (lambda: create_model("mobilenet_convgru_mcam_aff", 2, variant="x"), "reset_after, reset_before"),
        (lambda: create_model("mobilenet_convgru_mcam_aff", 2, classifier_on="x"), "maps, vectors"),
        (lambda: create_model("xception_lstm", 2, variant="x"), "reset_after, reset_before"),  # which it does not use
        (lambda: create_model("tsn_xception", 2, readout="x"), "last, mean, max"),
        (lambda: create_model("tsn_xception", 2, update_bias_init=float("nan")), "finite"),
        (lambda: create_model("two_stream", 2, flow_weight=float("inf")), "finite"),
        (lambda: create_model("tsn_xception", 2, freeze_tail_bn="no"), "true, false, or a list"),
        (lambda: create_model("tsn_xception", 2, freeze_tail_bn=["conv9"]), "'conv9', no module of legacy_xception"),
        (lambda: create_model("tsn_xception", 2, tail_start="conv3", tail_end="block12"), "behind its end"),
        (lambda: create_model("tsn_xception", 2, backbone="xception_small", pad_type="same"), "one padding"),
        (lambda: create_model("tsn_xception", True), "at least one class, not True"),
    ],
)
def test_wrong_use_says_what_exists(call, message):
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_number_of_classes_may_be_numpys():
    small = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
    assert create_model("sc_xception_convgru_mcam_aff", np.int64(3), **small).num_classes == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["sc_xception_convgru_mcam_aff", "xception_lstm", "stam"])
def test_models_run_in_the_type_of_their_weights(name, dtype):
    model = create_model(name, 3, backbone="xception_small", hidden_channels=8).eval()
    frames = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(frames)
        found = model.to(dtype)(frames.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), expected, atol=0.05 if dtype == torch.bfloat16 else 0.01)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8), "normalise them first"),
        (torch.zeros(1, 0, 3, 64, 64), "T >= 1"),
        (torch.zeros(2, 3, 64, 64), "expected"),
    ],
)
def test_frames_of_another_kind_are_refused_with_the_reason(frames, message):
    model = create_model("sc_xception_convgru_mcam_aff", 2, backbone="xception_small", hidden_channels=4, width=8)
    with pytest.raises(ValueError, match=message):
        model(frames)
