"""Models that see flow train and predict by the same commands as all others, each stream by its own loss."""

from pathlib import Path

import pytest
import torch
from small_set import ACTIONS, PATTERN, write_small_set

from kinegru.__main__ import main
from kinegru.data import flow_cache
from kinegru.data.catalog import load_catalog
from kinegru.data.dataset import ClipDataset
from kinegru.models import create_model
from kinegru.models.modelfile import read_header
from kinegru.recognition.recognizer import Recognizer
from kinegru.training.loop import fit
from kinegru.training.processes import make_accelerator
from kinegru.training.settings import TrainSettings
from kinegru.video.flow import flow_of_frames

pytest.importorskip("cv2", reason="the extra `flow` is not installed")

SMALL = {"frames": 2, "size": 32, "batch": 4, "workers": 0, "device": "cpu", "backbone_weights": "none"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("data") / "bars", people=("ann", "bob", "cyd"))


def test_the_loss_is_the_mean_of_the_streams_and_top1_that_of_their_fusion(clips: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("two_stream", 2, backbone="xception_small", dropout=0.0)
    model.encoder.requires_grad_(False)
    chosen = TrainSettings(**SMALL, epochs=1, learning_rate=1e-9, augment=False, label_smoothing=0.1)
    dataset = ClipDataset(load_catalog(str(clips)).clips, ACTIONS, chosen.preprocessing(model.preprocessing_defaults))
    samples = [dataset[i] for i in range(len(dataset))]
    frames, targets = torch.stack([s.inputs for s in samples]), torch.tensor([s.target for s in samples])
    model.encoder.keep_statistics = tuple(model.encoder.items())  # then clips do not depend on their batch
    with torch.no_grad():
        logits = model.train()(frames)  # (6, 2, 2)
    each = [torch.nn.functional.cross_entropy(logits[:, i], targets, label_smoothing=0.1) for i in (0, 1)]
    scores = logits[:, 0].softmax(dim=1) + 1.5 * logits[:, 1].softmax(dim=1)
    row = fit(model, dataset, None, chosen, tmp_path, make_accelerator(chosen)).history[0]
    assert row.train_loss == pytest.approx(float(sum(each)) / 2, rel=1e-4)
    assert row.train_top1 == pytest.approx(float((scores.argmax(dim=1) == targets).double().mean()))


def test_train_and_predict_by_command(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    computed = []
    monkeypatch.setattr(flow_cache, "flow_of_frames", lambda frames: computed.append(1) or flow_of_frames(frames))
    run = tmp_path / "run"
    command = [
        "train",
        str(clips),
        "--model",
        "sts",
        "--options.backbone",
        "xception_small",
        "--group_pattern",
        PATTERN,
    ]
    settings = SMALL | {"epochs": 1, "views": 3, "validation": 0, "cache": tmp_path / "cache", "out": run}
    assert main([*command, *(f"--{key}={value}" for key, value in settings.items())]) == 0, capsys.readouterr().err
    assert len(computed) == 6 == len(list((tmp_path / "cache" / "flow").iterdir()))  # once a clip, for all its views
    stored = read_header(run / "model.safetensors")["preprocessing"]
    assert stored["modalities"] == ["rgb", "flow", "saliency"]
    clip = clips / "left" / "ann_left.mp4"
    capsys.readouterr()
    assert main(["predict", str(run), str(clip), "--json"]) == 0
    assert Recognizer.load(run, "cpu").predict(clip).label in capsys.readouterr().out
