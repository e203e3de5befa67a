"""The smallest real training: two actions of six people as encoded videos, the paper's model at 32 pixels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinegru.data.catalog import Clip, load_catalog
from kinegru.data.dataset import ClipDataset
from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.zoo import create_model
from kinegru.training.features import fill_cache
from kinegru.training.loop import FitResult, fit
from kinegru.training.processes import make_accelerator
from kinegru.training.settings import TrainSettings
from kinegru.video.writer import write_video

PATTERN = r"/([a-z]+)_"  # the person in run/ann_run.mp4
PEOPLE = ("ann", "bob", "cyd", "dan", "eve", "fay")
ACTIONS = ("run", "walk")
OPTIONS = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}


def write_clips(folder: Path, people: tuple[str, ...] = PEOPLE) -> Path:
    """FOLDER/ACTION/PERSON_ACTION.mp4: a bright square that goes right or down, on the person's colour."""
    for action in ACTIONS:
        for person in people:
            rng = np.random.default_rng([PEOPLE.index(person), ACTIONS.index(action)])
            background = np.random.default_rng(PEOPLE.index(person)).integers(0, 120, 3)
            frames = (background + rng.integers(0, 30, (8, 32, 40, 3))).astype(np.uint8)
            for time, frame in enumerate(frames):
                y, x = (10, 2 + 4 * time) if action == "run" else (2 + 3 * time, 14)
                frame[y : y + 8, x : x + 8] = 255
            write_video(folder / action / f"{person}_{action}.mp4", frames)
    return folder


def spoil(source: Path, folder: Path, *names: str) -> Path:
    """A copy of a data set in which the named clips are no videos."""
    shutil.copytree(source, folder)
    for name in names:
        (folder / name).write_bytes(b"this is no video")
    return folder


def settings(**changes: Any) -> TrainSettings:
    """Settings of a run that takes a second."""
    values: dict[str, Any] = {
        "options": OPTIONS | changes.pop("options", {}), "backbone_weights": "none", "frames": 3, "size": 32,
        "epochs": 2, "batch": 4, "views": 2, "learning_rate": 1e-2, "validation": 0.25, "cache": "off", "workers": 0,
        "device": "cpu", "seed": 1,
    }  # fmt: skip
    return TrainSettings(**values | changes)


def command(clips: Path, run: Path, **changes: Any) -> list[str]:
    """Arguments of `kinegru` for a run with `settings(**changes)`, tested on one person; resume and overwrite too."""
    values = {"split": "group", "group_pattern": PATTERN, "resume": False, "overwrite": False}
    chosen = {name: changes.pop(name, value) for name, value in values.items()}
    changed = {k: v for k, v in settings(**changes).to_dict().items() if v != getattr(TrainSettings(), k)}
    options = [f"--options.{name}={value}" for name, value in changed.pop("options").items()]
    given = [f"--{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in (chosen | changed).items()]
    return ["train", str(clips), "--out", str(run), *options, *given]


def divide(folder: Path) -> tuple[list[Clip], list[Clip]]:
    """Clips to train on (five people) and to validate on (fay)."""
    clips = load_catalog(folder, PATTERN).clips
    return [clip for clip in clips if clip.group != "fay"], [clip for clip in clips if clip.group == "fay"]


def build(chosen: TrainSettings) -> ActionRecognizer:
    """The model of these settings, with the initial weights of their seed."""
    torch.manual_seed(chosen.seed)
    model = create_model(chosen.model, len(ACTIONS), backbone_weights=chosen.backbone_weights, **chosen.options)
    return model.set_profile(chosen.profile)


def fit_tiny(
    clips: Path,
    run: Path,
    chosen: TrainSettings,
    *,
    cache: Path | None = None,
    resume: bool = False,
    validate: bool = True,
    model: ActionRecognizer | None = None,
    track: Callable[[int, int, str], None] | None = None,
) -> tuple[ActionRecognizer, FitResult]:
    """Train on five people, validate on the sixth; with `cache` from cached features."""
    accelerator = make_accelerator(chosen)
    model = model or build(chosen)
    preprocessing = chosen.preprocessing(model.preprocessing_defaults)
    train, validation = divide(clips)
    datasets: dict[str, Any] = {
        "train": ClipDataset(train, ACTIONS, preprocessing, chosen.augmentation()),
        "validation": ClipDataset(validation, ACTIONS, preprocessing),
    }
    if cache is not None:
        views = {"train": list(range(1, chosen.views + 1)) if chosen.augment else [0], "validation": [0]}
        for name, dataset in datasets.items():
            datasets[name], _ = fill_cache(
                model, dataset, views[name], cache, accelerator, precision=chosen.cache_precision
            )
    held = datasets["validation"] if validate else None
    result = fit(model, datasets["train"], held, chosen, run, accelerator, resume=resume, track=track)
    return model, result


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything in a model."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Equal in every bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, the first is {different[0]}"


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 2e-5) -> None:
    """Equal to float32 accuracy."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=1e-4, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
