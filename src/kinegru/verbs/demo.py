"""`kinegru demo`: the whole way in a few minutes, on clips drawn here or on the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinegru.console import progress_bar
from kinegru.data.catalog import load_catalog
from kinegru.evaluation.predictions import Predictions
from kinegru.training.settings import TrainSettings
from kinegru.verbs import predict as predict_verb
from kinegru.verbs.predict import Predicted, predict
from kinegru.verbs.train import TrainResult, train
from kinegru.video.synthetic import write_dataset

PERSON = r"/(p\d+)_"  # in the drawn clips' names

PEOPLE = 24

SETTINGS: dict[str, Any] = {
    "options": {
        "backbone": "xception_small",
        "hidden_channels": 32,
        "width": 64,
        "differences": True,
        "dropout": 0.1,
    },
    "backbone_weights": "none",
    "profile": "full",
    "frames": 8,
    "size": 64,
    "batch": 8,
    "epochs": 40,
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "views": 0,
    "crop_scale": 0.9,
    "colour": 0.1,
    "validation": 0.15,
}


@dataclass(frozen=True)
class Demonstrated:
    """What the demo did."""

    trained: TrainResult
    predicted: Predicted

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"train": self.trained.to_dict(), "predict": self.predicted.to_dict()}


def demo(data: str | None = None, *, out: str | None = None, epochs: int = SETTINGS["epochs"]) -> Demonstrated:
    """Train the paper's architecture at a small size, test it on people never seen, predict one clip, write the report.

    Args:
        data: Your clips (a folder of class folders, or a CSV); by default a set of drawn figures is made.
        out: Folder of the run; by default runs/demo, for your clips runs/demo-NAME. A finished run is not repeated.
        epochs: Passes over the training clips.

    Raises:
        DataError: where your clips cannot be used, or the folder holds a run of others.
        Interrupted: after Ctrl-C or SIGTERM; the same call goes on.
    """
    run = Path(out) if out else Path("runs") / ("demo" if data is None else f"demo-{Path(data).resolve().stem}")
    pattern = None
    if data is None:
        folder = run.parent / "demo-clips"
        with progress_bar("drawing clips") as track:
            write_dataset(folder, people=PEOPLE, calm=True, progress=track)
        data, pattern = str(folder), PERSON
    settings = TrainSettings(**SETTINGS | {"epochs": epochs})
    trained = train(data, out=str(run), group_pattern=pattern, resume=True, settings=settings)
    catalog = load_catalog(data, pattern)
    tested = Predictions.read(run / "predictions.csv").clips[0]
    clip = next((clip for clip in catalog.clips if catalog.name(clip) == tested), catalog.clips[0])
    return Demonstrated(trained, predict(str(run), str(clip.path)))


def show(result: Demonstrated) -> None:
    """Print what came out, and the report to open."""
    m = result.trained.metrics
    tested = "people never seen" if result.trained.siblings == 0 else "the test clips"
    print(f"on {tested}: {m['right']} of {m['clips']} right ({m['top1']:.0%})")
    predict_verb.show(result.predicted)
    print(f"open this report: {(result.trained.run / 'report.html').resolve()}")
