"""A trained model at work on clips: file or frames in, label and scores out.

Sampling, resize and normalisation come from the model file, so that a clip is seen as it was in training.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kinegru.errors import ModelFileError, UsageError, VideoError
from kinegru.models.modelfile import LoadedModel, ModelFile, resolve
from kinegru.models.recognizer import ActionRecognizer
from kinegru.recognition.engines import Engine, EngineName, TorchEngine, exported_engine
from kinegru.recognition.prediction import Prediction
from kinegru.recognition.recording import scan
from kinegru.recognition.stream import Stream
from kinegru.recognition.timeline import Rules, Segment, make_segments
from kinegru.recognition.window import Anew, Moving, Window
from kinegru.video.loading import clip_input, load_windows
from kinegru.video.transforms import Preprocessing

logger = logging.getLogger(__name__)


class Recognizer:
    """A model file in use.

    >>> from kinegru.video.synthetic import example_clip
    >>> recognizer = example_recognizer()
    >>> prediction = recognizer.predict(example_clip())
    >>> prediction.label in recognizer.labels, 0 <= prediction.score <= 1
    (True, True)
    """

    def __init__(
        self, loaded: LoadedModel | ModelFile, device: str | torch.device = "auto", engine: Engine | None = None
    ) -> None:
        self.device = choose_device(device)
        self._loaded = loaded
        self.labels = tuple(loaded.labels)
        self.preprocessing = _preprocessing(loaded)
        self.provenance = loaded.provenance
        self.clip_statistics = loaded.clip_statistics
        self.engine = engine or TorchEngine(self.model, self.device)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: str | torch.device = "auto",
        engine: EngineName = "auto",
    ) -> Recognizer:
        """Open a model file, a folder that holds one (a RUN), or a model on a hub.

        `engine` is what runs it: torch, or what `kinegru export` wrote beside the file (onnx, openvino, and both with
        -int8). `auto` takes an export that gives torch's numbers where there is one and its runtime is installed, else
        torch.

        Raises `ModelFileError` for a file or an export that cannot be used, `UsageError` where a runtime is missing.
        """
        path = resolve(path_or_hub_id)
        on = choose_device("cpu" if device == "auto" and engine not in ("auto", "torch") else device)
        return cls(ModelFile(path), on, exported_engine(engine, on, path))

    @functools.cached_property
    def model(self) -> ActionRecognizer:
        """The torch model, in eval mode on `device`; where an export does the work it is built at its first use."""
        return self._loaded.model.to(self.device).eval()

    def predict(self, source: str | os.PathLike[str] | np.ndarray) -> Prediction:
        """Recognise one clip: a video file, or its frames as uint8 (L, H, W, 3) RGB of any length L >= 1.

        Of a file the windows of the preprocessing are averaged; frames in memory are one window, whatever their rate.

        Raises `VideoError` where the file cannot be read, `UsageError` for what is neither a path nor frames.
        """
        if not isinstance(source, (str, os.PathLike)):
            return self._recognise(["frames"], [clip_input(source, self.preprocessing)[None]])[0]
        return self._recognise([os.fspath(source)], [load_windows(source, self.preprocessing)])[0]

    def predict_many(
        self, sources: Iterable[str | os.PathLike[str]], batch: int = 4, threads: int = 2
    ) -> Iterator[tuple[str, Prediction | VideoError]]:
        """Recognise files in their order, decoding ahead; an unreadable one gives its `VideoError`, the rest go on.

        `batch` clips go through the model together, `threads` decode. Raises UsageError where either is below 1.
        """
        if isinstance(sources, (str, os.PathLike)):
            raise UsageError(f"{os.fspath(sources)!r} is one file: give a list of files, or call predict")
        for name, value in (("batch", batch), ("threads", threads)):
            if value < 1:
                raise UsageError(f"{name} is {value}: give 1 or more")
        waiting: deque = deque()
        group: list[tuple[str, torch.Tensor | VideoError]] = []
        with ThreadPoolExecutor(threads) as pool:
            for source in sources:
                waiting.append((os.fspath(source), pool.submit(_try_load, source, self.preprocessing)))
                if len(waiting) >= threads + batch:
                    group.append(_finished(waiting))
                if len(group) == batch:
                    yield from self._group(group)
                    group = []
            while waiting:
                group.append(_finished(waiting))
                if len(group) == batch or not waiting:
                    yield from self._group(group)
                    group = []
        yield from self._group(group)

    def stream(self, window: int | Literal["clip"] | None = "clip", stride: int | None = None) -> Stream:
        """The recogniser fed frame by frame: an object with `.step(frame)` and `.reset()`.

        `window` is the number of frames that make a prediction (`clip`: `clip_window`; None carries the state for
        ever), and every `stride`-th frame from then on gives one, by default each that the network looks at. Each
        equals `predict` on the window's frames.

        >>> recognizer = example_recognizer()
        >>> stream = recognizer.stream(window=3)
        >>> frames = np.random.default_rng(0).integers(0, 255, (4, 72, 96, 3), dtype=np.uint8)
        >>> [None if p is None else p.source for p in map(stream.step, frames)]
        [None, None, 'frames 0 to 2', 'frames 1 to 3']
        """
        length = self.clip_window if window == "clip" else window
        engine = self.engine
        if length is not None and not self.takes(engine, length):
            logger.warning("the export takes windows of %d frames only; torch is used for %d", engine.length, length)
            engine = TorchEngine(self.model, self.device)
        return self.stream_on(engine, length, stride)

    def takes(self, engine: Engine, window: int) -> bool:
        """Whether an engine takes windows of so many frames."""
        return engine.length in (None, self._looked_at(window))

    def stream_on(self, engine: Engine, window: int | None, stride: int | None = None) -> Stream:
        """A stream that a given engine runs; else as `stream`."""
        preprocessing = self.preprocessing
        together: Callable[[int], Window] | None = None
        if stride is None:
            stride = max(1, window // preprocessing.frames) if window and preprocessing.sees_motion else 1
        if preprocessing.sees_motion:
            together = functools.partial(Moving, engine, preprocessing)
        elif preprocessing.mixes_frames:
            together = functools.partial(Anew, engine, self._prepare)
        stream = Stream(engine, self._prepare, self.labels, window, stride, together)
        if window is not None:
            dataclasses.replace(preprocessing, frames=self._looked_at(window))  # says where a window is too short
        return stream

    def timeline(
        self,
        source: str | os.PathLike[str],
        *,
        fps: float | None = None,
        window: int | None = None,
        stride: int | None = None,
        rules: Rules | None = None,
    ) -> list[Segment]:
        """What happens when in a video file of any length: segments without hole or overlap, some of them `unknown`.

        Frames are taken at `fps` a second (by default `frame_rate`, else the file's own), as windows of `window` frames
        (by default `clip_window`) every `stride` frames (by default a quarter of a window); `rules` make segments
        of their scores.

        Raises `VideoError` where the file cannot be read.

        >>> from kinegru.video.synthetic import example_clip
        >>> segments = example_recognizer().timeline(example_clip())
        >>> segments[0].start, round(segments[-1].end, 3)
        (0.0, 1.2)
        """
        scanned, _ = scan(self, source, fps, window, stride)
        return make_segments(scanned.scores, self.labels, rules or Rules())

    @property
    def temperature(self) -> float:
        """What logits are divided by so that scores are probabilities of being right; 1.0 where it was not fitted."""
        calibration = self.provenance.get("calibration")
        found = calibration.get("temperature") if isinstance(calibration, dict) else None
        return float(found) if isinstance(found, int | float) and 0 < found < float("inf") else 1.0

    def _prepare(self, frames: np.ndarray) -> torch.Tensor:
        """A window's frames, uint8 (n, H, W, 3) -> the network's input, (T, C, S, S)."""
        return clip_input(frames, dataclasses.replace(self.preprocessing, frames=self._looked_at(len(frames))))

    def _looked_at(self, window: int) -> int:
        """How many of a window's frames the network sees: all, where it does not see the motion between them."""
        return self.preprocessing.frames if self.preprocessing.sees_motion else window

    @property
    def frame_rate(self) -> float | None:
        """Frames a second that a window should have to look like a training clip; None where their length is unknown.

        The rate that the model was trained at, or the frames of a clip over the median duration of the training clips;
        for a model that sees motion the median rate of the training clips, as motion is that from frame to frame.
        """
        if self.preprocessing.sees_motion:
            return self.clip_statistics.get("median_fps")
        if self.preprocessing.rate is not None:
            return self.preprocessing.rate
        seconds = self.clip_statistics.get("median_seconds")
        return self.preprocessing.frames / seconds if seconds else None

    @property
    def clip_window(self) -> int:
        """Frames of a window that looks like a training clip: as many as the network sees.

        For a model that sees motion as many as a training clip has between the first and the last of those, about: a
        multiple of their number, so that windows share them.
        """
        frames, rate = self.preprocessing.frames, self.preprocessing.rate
        if not self.preprocessing.sees_motion:
            return frames
        length = self.clip_statistics.get("median_frames", frames)
        if rate is not None and self.frame_rate is not None:
            length = min(length, frames * self.frame_rate / rate)
        return frames * max(1, round(length / frames))

    def _group(self, group: list[tuple[str, torch.Tensor | VideoError]]) -> list[tuple[str, Prediction | VideoError]]:
        good = [(name, frames) for name, frames in group if isinstance(frames, torch.Tensor)]
        found = iter(self._recognise([name for name, _ in good], [frames for _, frames in good]))
        return [(name, next(found) if isinstance(got, torch.Tensor) else got) for name, got in group]

    def _recognise(self, names: list[str], clips: list[torch.Tensor]) -> list[Prediction]:
        if not clips:
            return []
        counts = [len(clip) for clip in clips]
        with torch.inference_mode():
            logits = self.engine.clip(torch.cat(clips))  # (windows of all clips, T, C, S, S) -> (.., K)
            scores = logits.float().softmax(dim=1).double().cpu().split(counts)
        return [
            Prediction(name, self.labels, rows.mean(dim=0).numpy()) for name, rows in zip(names, scores, strict=True)
        ]


def example_recognizer() -> Recognizer:
    """A small untrained recogniser of two classes, for examples and trials."""
    import tempfile

    from kinegru.models.modelfile import save_model
    from kinegru.models.zoo import create_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("sc_xception_convgru_mcam_aff", 2, backbone="xception_small", hidden_channels=4, width=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, model, ["run", "walk"], Preprocessing(frames=4, size=64).to_dict(), {}, {})
        return Recognizer.load(path, "cpu")


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is a GPU where there is one, else the CPU.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise UsageError(f"device {device!r} is unknown: give auto, cpu, cuda, cuda:1 or mps") from None
        if (chosen.type == "cuda" and not torch.cuda.is_available()) or (
            chosen.type == "mps" and not torch.backends.mps.is_available()
        ):
            raise UsageError(f"device {device}: none is to be seen here; auto takes what there is")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _preprocessing(loaded: LoadedModel | ModelFile) -> Preprocessing:
    try:
        return Preprocessing.from_dict(loaded.preprocessing)
    except (UsageError, TypeError, ValueError) as error:  # written by a newer kinegru, or by hand
        name = loaded.path if isinstance(loaded, ModelFile) else "model"
        raise ModelFileError(f"{name}: its preprocessing cannot be used: {error}") from error


def _try_load(source: str | os.PathLike[str], preprocessing: Preprocessing) -> torch.Tensor | VideoError:
    try:
        return load_windows(source, preprocessing)
    except VideoError as error:
        return error


def _finished(waiting: deque) -> tuple[str, torch.Tensor | VideoError]:
    name, future = waiting.popleft()
    return name, future.result()
