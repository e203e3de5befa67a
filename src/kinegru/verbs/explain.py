"""`kinegru explain MODEL VIDEO`: where and when the model looked, as a video, a sheet of frames, curves and numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kinegru.console import progress_bar, say
from kinegru.errors import UsageError
from kinegru.files import atomic_write
from kinegru.recognition.attribution import METHODS
from kinegru.recognition.explain import Explanation
from kinegru.recognition.explain import explain as explain_clip
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.sanity import cascade
from kinegru.video.container import shown
from kinegru.video.loading import load_images
from kinegru.video.writer import write_video

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERLAY, SHEET, CURVES, NUMBERS = "overlay.mp4", "frames.png", "time.png", "explain.json"


@dataclass(frozen=True)
class Explained:
    """An explanation, and the files it was written to."""

    found: Explanation
    sanity: dict[str, float] | None = None  # rank correlation with the maps of randomised models
    files: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the JSON file holds the maps as well."""
        return {**self.found.to_dict(), "sanity": self.sanity, "files": self.files}


def explain(
    model: str,
    video: str,
    *,
    label: str | None = None,
    out: str | None = None,
    on: Literal["auto", "states", "maps"] = "auto",
    scale: Literal["clip", "frame"] = "clip",
    sanity: bool = False,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> Explained:
    """Show where and when the model looked in a video: Grad-CAM on the ConvGRU's states, the excitation's mask, gates.

    Writes overlay.mp4 (the video under its heat), frames.png (frames, mask and heat), time.png (score, heat, masks and
    gates over time, and a deletion check) and explain.json (the numbers and maps).

    Args:
        model: Model file, RUN folder, or hub id.
        video: Video file, taken as one clip.
        label: The class to look for; by default the one that the model predicts.
        out: Folder for the files; by default NAME-OF-VIDEO.explain here.
        on: What the heat is on: the ConvGRU's states (auto, where there is one) or the encoder's last maps.
        scale: Full heat is the hottest place of the `clip`, or of each `frame`, which shows faint frames too.
        sanity: Also compare the maps with those of a model with random weights (Adebayo et al. 2018).
        device: Where to compute.

    Raises:
        UsageError: for options out of range, or a label or states that the model does not have.
        ModelFileError: for a model file or an export of it that cannot be used.
        VideoError: for a video that cannot be read.
    """
    folder = Path(out if out is not None else f"{Path(video).stem}.explain")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {shown(folder)}: is a file; give a folder")
    if (folder / OVERLAY).exists() and Path(video).exists() and (folder / OVERLAY).samefile(video):
        raise UsageError(f"--out {shown(folder)}: {OVERLAY} in it is the video itself; give another folder")
    recognizer = Recognizer.load(model, device, engine="torch")
    found = explain_clip(recognizer, video, label, on)
    if found.damage:
        say(f"note: {shown(video)} is damaged, this is about what decodes: {found.damage}")
    if not found.look.heat.any():
        say(f"note: no place speaks for {found.label!r}: there is no heat to show")
    compared = _sanity(recognizer, found) if sanity else None
    return Explained(found, compared, _write(found, recognizer, scale, compared, folder))


def show(result: Explained) -> None:
    """Print what was found, for people."""
    found, deletion = result.found, result.found.deletion
    said = "" if found.label == found.predicted else f", though it predicts {found.predicted}"
    print(f"{found.label} {found.score:.1%}{said}")
    print(f"heat: Grad-CAM on {METHODS[found.look.method]}")
    if len(deletion.shares) > 1:
        half = min(range(1, len(deletion.shares)), key=lambda i: abs(deletion.shares[i] - 0.5))
        print(
            f"{deletion.shares[half]:.0%} of the frames replaced: {deletion.hottest[half]:.1%} without the hottest, "
            f"{deletion.coldest[half]:.1%} without the coldest"
        )
    if result.sanity is not None:
        parts = ", ".join(f"{part} {value:+.2f}" for part, value in result.sanity.items())
        print(f"rank correlation with randomised models, up to the {parts} (0: unrelated, as it should be)")
    print(f"written: {', '.join(map(shown, result.files))}")


# -- steps --------------------------------------------------------------------------------------------------------


def _sanity(recognizer: Recognizer, found: Explanation) -> dict[str, float]:
    preprocessing = recognizer.preprocessing
    images, _ = load_images(found.source, preprocessing, window=found.window)
    frames = preprocessing.normalise(images)[None].to(recognizer.device)
    return cascade(recognizer.model, frames, found.labels.index(found.label), found.look.method)


def _write(
    found: Explanation,
    recognizer: Recognizer,
    scale: Literal["clip", "frame"],
    sanity: dict[str, float] | None,
    folder: Path,
) -> list[str]:
    from kinegru.verbs.explain_figures import over_time, overlay, sheet

    preprocessing = recognizer.preprocessing
    with progress_bar(f"writing {OVERLAY}, frames", quiet=found.length < 500) as track:
        write_video(folder / OVERLAY, overlay(found, preprocessing, scale, track), found.fps)
    _save(sheet(found, preprocessing, scale), folder / SHEET)
    _save(over_time(found), folder / CURVES)
    with atomic_write(folder / NUMBERS) as file:
        look = found.look
        maps = {"heat": look.heat, "spatial_mask": look.spatial}
        kept = {name: None if values is None else values.round(5).tolist() for name, values in maps.items()}
        json.dump({**found.to_dict(), "sanity": sanity, "maps": kept}, file, ensure_ascii=False)
    return [str(folder / name) for name in (OVERLAY, SHEET, CURVES, NUMBERS)]


def _save(figure: Figure, path: Path) -> None:
    from kinegru.evaluation.figure_style import style

    with style(), atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150, facecolor="white")
