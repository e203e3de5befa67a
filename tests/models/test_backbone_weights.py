"""Backbone weights: what fits is loaded, what lacks is named, what does not belong or runs code is refused."""

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinegru.errors import KineGRUError, ModelFileError, UsageError
from kinegru.models.backbones import build_backbone, import_timm, load_weights

NAME = "mobilenetv2_050"


def refusal(error: type, call) -> str:
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_every_tensor_of_a_file_is_loaded(weights_file, tmp_path, suffix, wrap):
    tensors, path = load_file(weights_file), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        prefixed = {f"module.{key}": value for key, value in tensors.items()}
        torch.save({wrap: prefixed, "epoch": 3} if wrap else prefixed, path)
    else:
        save_file(tensors, path)
    built = build_backbone(NAME, str(path))
    own = built.net.state_dict()
    assert all(torch.equal(own[key], tensors[key]) for key in own)
    assert built.report.source == path.name and built.report.missing == built.report.unexpected == ()


def test_half_precision_and_kernels_without_their_last_axes_load(weights_file, tmp_path):
    tensors = load_file(weights_file)
    flat = {k: v.half()[:, :, 0, 0] if v.dim() == 4 and v.shape[2:] == (1, 1) else v for k, v in tensors.items()}
    assert any(v.dim() == 2 for v in flat.values())
    save_file({k: v.contiguous() for k, v in flat.items()}, tmp_path / "flat.safetensors")
    own = build_backbone(NAME, str(tmp_path / "flat.safetensors")).net.state_dict()
    torch.testing.assert_close(own["conv_head.weight"], tensors["conv_head.weight"], atol=1e-3, rtol=1e-3)


def test_missing_and_unexpected_keys_are_named(weights_file, tmp_path):
    tensors = load_file(weights_file)
    del tensors["bn2.weight"]
    tensors["classifier.weight"] = torch.zeros(1000, 1280)
    save_file(tensors, tmp_path / "partial.safetensors")
    report = build_backbone(NAME, str(tmp_path / "partial.safetensors")).report
    assert report.missing == ("bn2.weight",) and report.unexpected == ("classifier.weight",)
    assert "1 missing (bn2.weight)" in report.summary() and report.to_dict()["missing"] == ["bn2.weight"]


def test_a_file_in_which_nothing_matches_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"encoder.weight": torch.zeros(3)}, path)
    assert "none of its 1 tensors belongs to mobilenetv2_050" in refusal(
        ModelFileError, lambda: build_backbone(NAME, str(path))
    )


def test_another_shape_is_refused_by_name(weights_file):
    tensors = load_file(weights_file)
    tensors["conv_stem.weight"] = torch.zeros(32, 3, 5, 5)
    net = build_backbone(NAME).net
    assert "conv_stem.weight has shape (32, 3, 5, 5)" in refusal(
        ModelFileError, lambda: load_weights(net, tensors, "w.safetensors", NAME)
    )


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_code_in_a_pickle_never_runs(tmp_path, suffix):
    path, ran = tmp_path / f"weights{suffix}", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"conv_stem.weight": Malicious(ran)}))
    message = refusal(ModelFileError, lambda: build_backbone(NAME, str(path)))
    torch.save({"conv_stem.weight": Malicious(ran)}, path)
    refusal(ModelFileError, lambda: build_backbone(NAME, str(path)))
    assert not ran.exists() and path.name in message


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_rubbish_is_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(ModelFileError, lambda: build_backbone(NAME, str(path)))


def test_a_truncated_file_is_refused(weights_file, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights_file.read_bytes()[:-1000])
    assert "not a whole safetensors file" in refusal(ModelFileError, lambda: build_backbone(NAME, str(path)))


def test_wrong_names_say_what_exists(tmp_path):
    assert "did you mean" in refusal(UsageError, lambda: build_backbone("mobilenetv2_10"))
    assert "no such weights file" in refusal(UsageError, lambda: build_backbone(NAME, str(tmp_path / "no.pth")))
    assert "imagenet, or none" in refusal(UsageError, lambda: build_backbone(NAME, "imagnet"))


def test_a_failed_download_names_the_flag(monkeypatch):
    timm = import_timm()

    def unreachable(*args, **options):
        assert options["pretrained"]
        raise OSError("hub cannot be reached\nlong explanation")

    monkeypatch.setattr(timm, "create_model", unreachable)
    message = refusal(KineGRUError, lambda: build_backbone(NAME, "imagenet"))
    assert "--backbone-weights FILE" in message and "hub cannot be reached" in message


def test_mobilenet_uses_tensorflow_padding_and_others_timms():
    assert build_backbone(NAME).pad_type == "same"
    assert type(build_backbone(NAME).net.conv_stem).__name__ == "Conv2dSame"
    assert build_backbone(NAME, pad_type="").net.conv_stem.padding == (1, 1)
    assert build_backbone("efficientnet_b0").pad_type is None


def test_preprocessing_comes_from_the_backbone_or_its_weights_file(weights_file, tmp_path):
    half = [0.5, 0.5, 0.5]
    assert build_backbone("legacy_xception").preprocessing == {
        "size": 299, "mean": half, "std": half, "interpolation": "bicubic",
    }  # fmt: skip
    assert build_backbone("mobilenetv2_100").preprocessing["size"] == 160
    assert build_backbone("resnet18").preprocessing["mean"] == [0.485, 0.456, 0.406]
    path = tmp_path / "stated.safetensors"
    header = {"mean": "[0.4, 0.5, 0.6]", "std": "0.25", "interpolation": "bicubic", "source": "x"}
    save_file(load_file(weights_file), path, header)
    stated = build_backbone(NAME, str(path)).preprocessing
    assert stated == {"size": 96, "mean": [0.4, 0.5, 0.6], "std": [0.25] * 3, "interpolation": "bicubic"}
