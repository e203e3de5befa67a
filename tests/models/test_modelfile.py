"""One file is the whole model, and a file that is not one is refused with one line."""

import json
import pickle
import socket

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kinegru.errors import ModelFileError
from kinegru.models import create_model, list_models, load_model, resolve, save_model
from kinegru.models.modelfile import FORMAT_VERSION, read_header

LABELS = ["run", "walk", "jump – 跳", 'a "quoted" one']
PREPROCESSING = {"frames": 8, "size": 96, "fit": "stretch", "interpolation": "bilinear", "mean": [0.5], "std": [0.5]}
PROVENANCE = {"data": "clips", "split": "group", "seed": 3, "versions": {"torch": "2"}, "metrics": {"top1": 0.75}}
STATISTICS = {"seconds": {"median": 2.4, "count": 90}}


@pytest.fixture(scope="module")
def model_file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    return save_model(path, small(), LABELS, PREPROCESSING, PROVENANCE, STATISTICS)


def rewritten(model_file, folder, change=None, tensors=None):
    """The model file with its header or its tensors changed."""
    with safe_open(model_file, framework="pt") as file:
        header = file.metadata()
    header = change(dict(header)) if change else header
    path = folder / "changed.safetensors"
    save_file(tensors(load_file(model_file)) if tensors else load_file(model_file), path, header)
    return path


def refusal(path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def same_after_round_trip(model, folder, size):
    classes = model.num_classes
    path = save_model(folder / "model.safetensors", model, LABELS[:classes], PREPROCESSING, PROVENANCE, STATISTICS)
    loaded = load_model(path)
    assert not loaded.model.training and loaded.model.name == model.name and loaded.model.options == model.options
    frames = torch.rand(1, 2, model.encoder.in_channels, size, size)
    with torch.no_grad():
        assert torch.equal(loaded.model(frames), model.eval()(frames))
    return loaded


@pytest.mark.parametrize("name", list_models())
def test_round_trip_of_every_named_model(small, tmp_path, name):
    same_after_round_trip(small(name), tmp_path, 64)


@pytest.mark.parametrize(
    "name",
    [
        "sc_xception_convgru_mcam_aff",
        pytest.param("inception_v3_convgru", marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2_convgru", marks=pytest.mark.slow),
    ],
)
def test_round_trip_with_the_backbone_of_the_row(tmp_path, name):
    same_after_round_trip(create_model(name, 4), tmp_path, 96)


def test_everything_in_the_file_comes_back(model_file):
    loaded = load_model(model_file)
    assert loaded.labels == LABELS and loaded.preprocessing == PREPROCESSING
    assert loaded.provenance == PROVENANCE and loaded.clip_statistics == STATISTICS
    header = read_header(model_file)
    assert header["model"]["name"] == "mobilenet_convgru_mcam_aff" and header["labels"] == LABELS


def test_loading_needs_neither_weights_nor_network(small, weights_file, tmp_path, monkeypatch):
    short = tmp_path / "short.safetensors"
    save_file({k: v for k, v in load_file(weights_file).items() if not k.startswith(("conv_head", "bn2"))}, short)
    model = small(backbone_weights=str(short))
    path = save_model(tmp_path / "model.safetensors", model, LABELS, PREPROCESSING)
    short.unlink()

    def no_network(*args, **options):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    loaded = load_model(path).model
    assert loaded.encoder.resolved["tail_end"] == "blocks.6"
    frames = torch.rand(1, 3, 3, 64, 64)
    assert torch.equal(loaded(frames), model.eval()(frames))
    for profile in ("tail", "full"):  # training goes on with the same batch norms at rest
        kept = [{n for n, m in x.set_profile(profile).train().named_modules() if m.training} for x in (loaded, model)]
        assert kept[0] == kept[1]


def test_loading_leaves_the_random_numbers_alone(model_file):
    torch.manual_seed(0)
    load_model(model_file)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


def test_half_precision_weights_are_read(model_file, tmp_path):
    def halve(tensors):
        return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}

    loaded = load_model(rewritten(model_file, tmp_path, tensors=halve))
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_a_file_is_written_whole_or_not_at_all(small, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("the old model")
    for labels, provenance in (
        (LABELS[:3], {}),
        (LABELS, {"seed": object()}),
        (["a", "a", "b", "c"], {}),
        ([1, 2, 3, 4], {}),
    ):
        with pytest.raises(ModelFileError):
            save_model(path, small(), labels, PREPROCESSING, provenance)
    model = small()
    model.name = ""
    with pytest.raises(ModelFileError, match="create_model"):
        save_model(path, model, LABELS, PREPROCESSING)
    assert path.read_text() == "the old model" and list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_models_are_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    assert "no such model file" in refusal(path)
    path.write_bytes(b"")
    assert "is empty" in refusal(path)
    for content in (b"x", b"not a model at all" * 99, pickle.dumps({"labels": [1]}), b"\x00" * 64):
        path.write_bytes(content)
        assert "is not a model file" in refusal(path)
    (tmp_path / "run").mkdir()
    assert "is a folder" in refusal(tmp_path / "run")


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.7, 0.999])
def test_truncated_files_are_refused(model_file, tmp_path, share):
    content, path = model_file.read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in refusal(path)


def test_weights_of_others_are_refused(weights_file):
    assert "no KineGRU model" in refusal(weights_file)


def test_a_newer_format_is_refused(model_file, tmp_path):
    newer = str(FORMAT_VERSION + 1)
    assert "newer kinegru" in refusal(rewritten(model_file, tmp_path, lambda h: h | {"format_version": newer}))
    assert "damaged" in refusal(rewritten(model_file, tmp_path, lambda h: h | {"format_version": "one"}))


@pytest.mark.parametrize("key", ["labels", "preprocessing", "model", "provenance", "clip_statistics"])
def test_an_incomplete_header_is_refused(model_file, tmp_path, key):
    def without(header):
        del header[key]
        return header

    assert f"has no {key}" in refusal(rewritten(model_file, tmp_path, without))
    assert "not JSON" in refusal(rewritten(model_file, tmp_path, lambda h: h | {key: "{half"}))
    assert "wrong kind" in refusal(rewritten(model_file, tmp_path, lambda h: h | {key: "3"}))


def test_header_and_weights_must_agree(model_file, tmp_path):
    def model(**change):
        return lambda h: h | {"model": json.dumps(json.loads(h["model"]) | change)}

    def options(**change):
        return lambda h: model(options=json.loads(h["model"])["options"] | change)(h)

    for change, expected in (
        (lambda h: h | {"labels": json.dumps(LABELS[:3])}, "3 labels for a model of 4 classes"),
        (lambda h: h | {"labels": json.dumps(["a", "a", "b", "c"])}, "a label twice"),
        (lambda h: h | {"labels": json.dumps([1, 2, 3, 4])}, "not all text"),
        (lambda h: h | {"preprocessing": "{}"}, "has no preprocessing"),
        (lambda h: model(num_classes=3)(h) | {"labels": json.dumps(LABELS[:3])}, "classifier.output.weight has shape"),
        (model(name="unheard_of"), "cannot build"),
        (model(name=None), "does not say which model"),
        (options(backbone="unheard_of"), "cannot build"),
        (options(unheard_of=3), "cannot build"),
        (options(hidden_channels=7), "has shape"),
        (options(classifier="mlp"), "does not have"),
        (options(attention_global="separate"), "lacks the weights"),
    ):
        assert expected in refusal(rewritten(model_file, tmp_path, change))


def test_damaged_weights_are_refused(model_file, tmp_path):
    key = "classifier.fc1.weight"
    for change, expected in (
        (lambda t: {k: v for k, v in t.items() if k != key}, f"lacks the weights {key}"),
        (lambda t: t | {"more": torch.zeros(1)}, "more"),
        (lambda t: t | {key: t[key][:, :3].contiguous()}, "has shape"),
        (lambda t: t | {key: t[key].int()}, "torch.int32"),
        (lambda t: t | {key: t[key] / 0}, "not finite"),
    ):
        assert expected in refusal(rewritten(model_file, tmp_path, tensors=change))


def test_resolve_takes_files_and_folders_and_explains_the_rest(model_file, tmp_path):
    assert resolve(model_file) == resolve(model_file.parent) == model_file
    for wrong in ("no.safetensors", "folder/no.safetensors", str(tmp_path / "x" / "y"), "a b/c", "../x/y"):
        with pytest.raises(ModelFileError, match="no such model file, folder or hub id"):
            resolve(wrong)
    with pytest.raises(ModelFileError, match=r"holds no model\.safetensors"):
        resolve(tmp_path)
