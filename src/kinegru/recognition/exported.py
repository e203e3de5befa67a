"""An engine made of exported graphs, whatever runs them.

An export is a folder beside the model file: `model.safetensors` and `model.onnx/`. It holds one file a graph
(`kinegru.recognition.graphs`) and `export.json` with all that another program needs besides: labels, preprocessing, how
the graphs fit together. The model file stays the truth: `export.json` names it by its fingerprint, and an export of
another file is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from kinegru.errors import ModelFileError
from kinegru.files import digest_of_file

MANIFEST = "export.json"
FORMAT_VERSION = 2
ENDINGS = {"onnx": ".onnx", "onnx-int8": ".onnx", "openvino": ".xml", "openvino-int8": ".xml", "torch-export": ".pt2"}
FRAMES_PER_PASS = 8  # through the trunk; measured: more is no faster on a CPU


class Runtime(Protocol):
    """Graphs, loaded."""

    def run(self, graph: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One graph's outputs for its inputs, both in the order of `kinegru.recognition.graphs`."""


class _State(NamedTuple):
    frames: np.ndarray  # int64 (N,)
    carried: list[np.ndarray]  # each (N, ...)


class ExportedEngine:
    """See `kinegru.recognition.engines.Engine`; `advance` takes one frame after the other through the graph `step`.

    `path` is the model file that the folder must have been exported from; None does not compare. Raises ModelFileError
    for a folder that is none of ours, or of another model file, UsageError where the runtime is not installed.
    """

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self.manifest = read_manifest(folder, path)
        self.name: str = self.manifest["format"]
        self.radius: int | None = self.manifest["radius"]
        self.length: int | None = self.manifest["preprocessing"]["frames"] if self.radius is None else None
        self.runtime = _runtime(self.name, folder, list(self.manifest["graphs"]))

    def trunk(self, frames: Tensor) -> Tensor:
        """See `Engine`."""
        images = frames.detach().cpu().numpy()
        found = [self._run("trunk", images[at : at + FRAMES_PER_PASS]) for at in range(0, len(images), FRAMES_PER_PASS)]
        return torch.from_numpy(np.concatenate(found) if len(found) > 1 else found[0])

    def parts(self, maps: Tensor, keep: slice) -> Tensor:
        """See `Engine`."""
        return torch.from_numpy(self._parts(maps.numpy()[None], np.arange(len(maps))[keep])[0])

    def advance(self, parts: Tensor, state: _State | None = None) -> _State:
        """See `Engine`."""
        windows = 1 if state is None else len(state.frames)
        array = parts.numpy()[None]
        return self._advance(array if windows == 1 else np.repeat(array, windows, axis=0), state)

    def join(self, states: Sequence[_State]) -> _State:
        """See `Engine`."""
        frames = np.concatenate([state.frames for state in states])
        return _State(frames, [np.concatenate(arrays) for arrays in zip(*(s.carried for s in states), strict=True)])

    def take(self, state: _State, windows: slice) -> _State:
        """See `Engine`."""
        return _State(state.frames[windows], [array[windows] for array in state.carried])

    def logits(self, state: _State) -> Tensor:
        """See `Engine`."""
        return torch.from_numpy(self._logits(state))

    def clip(self, frames: Tensor) -> Tensor:
        """See `Engine`."""
        if self.radius is None:
            images = frames.detach().cpu().numpy()
            return torch.from_numpy(np.concatenate([self._run("clip", clip[None]) for clip in images]))
        clips, length = frames.shape[:2]
        maps = self.trunk(frames.flatten(0, 1)).numpy().reshape(clips, length, *self._shape("trunk"))
        parts = np.concatenate([self._parts(clip[None], np.arange(length)) for clip in maps])  # (N, T, ...)
        return torch.from_numpy(self._logits(self._advance(parts)))

    def _parts(self, maps: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """(N, T, C0, h0, w0) -> (N, k, ...)."""
        if not len(keep):
            return np.empty((len(maps), 0, *self._shape("neck")), np.float32)
        return self._run("neck", maps, keep.astype(np.int64))

    def _advance(self, parts: np.ndarray, state: _State | None = None) -> _State:
        """(N, T, ...)."""
        for number in range(parts.shape[1]):
            part = np.asarray(parts[:, number], order="C")
            if state is None:
                state = _State(np.ones(len(part), np.int64), self.runtime.run("start", [part]))
            else:
                state = _State(state.frames + 1, self.runtime.run("step", [part, *state.carried]))
        assert state is not None, "a clip has at least one frame"
        return state

    def _logits(self, state: _State) -> np.ndarray:
        return self._run("read", state.carried[0], state.frames)

    def _run(self, graph: str, *inputs: np.ndarray) -> np.ndarray:
        return self.runtime.run(graph, inputs)[0]

    def _shape(self, graph: str) -> list[int]:
        """Of a graph's output for one frame."""
        return self.manifest["graphs"][graph]["shape"]


def export_folder(path: Path, name: str) -> Path:
    """Where the export of a model file lies.

    >>> export_folder(Path("runs/clips/model.safetensors"), "onnx-int8").as_posix()
    'runs/clips/model.onnx-int8'
    """
    return path.with_suffix(f".{name}")


def fingerprint(path: Path) -> str:
    """32 hex digits for the model file's content."""
    return digest_of_file(path)[:32]


def read_manifest(folder: Path, path: Path | None = None) -> dict[str, Any]:
    """`export.json` of an export, checked. Raises ModelFileError, one line."""
    if not (folder / MANIFEST).is_file():
        form = folder.suffix.removeprefix(".")
        command = f"kinegru export {path or 'MODEL'} --format {form}" + " --data CLIPS" * form.endswith("-int8")
        raise ModelFileError(f"{folder}: there is no export; `{command}` makes it")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, source = int(manifest["format_version"]), manifest["model"]["fingerprint"]
        files = [folder / f"{name}{ENDINGS[manifest['format']]}" for name in manifest["graphs"]]
        sound = {"radius", "labels", "preprocessing"} <= manifest.keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{folder / MANIFEST}: damaged; export the model again") from error
    if not sound:
        raise ModelFileError(f"{folder / MANIFEST}: damaged; export the model again")
    if version != FORMAT_VERSION:
        age = "a newer" if version > FORMAT_VERSION else "an older"
        raise ModelFileError(f"{folder}: written by {age} kinegru (format {version}); export the model again")
    for file in files:
        if not file.is_file():
            raise ModelFileError(f"{file}: is missing; export the model again")
    if path is not None and source != fingerprint(path):
        raise ModelFileError(f"{folder}: was exported from another model file than {path}; export it again")
    return manifest


def _runtime(name: str, folder: Path, graphs: list[str]) -> Runtime:
    files = {graph: folder / f"{graph}{ENDINGS[name]}" for graph in graphs}
    if name.startswith("openvino"):
        from kinegru.recognition.openvino_engine import OpenVINO

        return OpenVINO(files)
    if name == "torch-export":
        return TorchPrograms(files)
    from kinegru.recognition.onnx_engine import OnnxRuntime

    return OnnxRuntime(files)


class TorchPrograms:
    """What `torch.export` wrote, run by torch: to check it, and as an example of its use."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.programs = {graph: torch.export.load(file).module() for graph, file in files.items()}

    @torch.inference_mode()
    def run(self, graph: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Runtime`."""
        found = self.programs[graph](*(torch.from_numpy(np.asarray(array, order="C")) for array in inputs))
        return [tensor.numpy() for tensor in (found if isinstance(found, tuple | list) else [found])]
