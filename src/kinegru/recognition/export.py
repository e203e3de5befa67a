"""A model as graphs for other runtimes: written, checked against torch on real frames, and only then put in place.

* One road: the model with folded batch norms is traced by `torch.export`; ONNX is made of that, and OpenVINO and the
  eight-bit form are made of the ONNX.
* What is checked is what will run: the written files, loaded by their runtime, against the model as it was trained, for
  single frames, for several, and for whole clips of two lengths.
* Tracing takes most of the time. Where an ONNX export of the same model file lies beside, OpenVINO and the eight-bit
  form are made of that: calibrating anew on other clips takes only the calibration.
* See `kinegru.recognition.exported` for what lies in the folder, and `graphs` for the graphs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from kinegru.errors import KineGRUError, ModelFileError, UsageError
from kinegru.files import atomic_directory
from kinegru.recognition.engines import Engine, TorchEngine, folded
from kinegru.recognition.exported import (
    ENDINGS,
    FORMAT_VERSION,
    MANIFEST,
    ExportedEngine,
    export_folder,
    fingerprint,
    read_manifest,
)
from kinegru.recognition.graphs import QUANTISED, Graph, graphs

if TYPE_CHECKING:
    from kinegru.recognition.recognizer import Recognizer

Format = Literal["onnx", "onnx-int8", "openvino", "openvino-int8", "torch-export"]
INT8 = ("onnx-int8", "openvino-int8")
TOLERANCE = 1e-4  # of float32 exports: the greatest difference from torch, over torch's greatest value
COMPARED = 4  # clips at most
LONGEST = 1 << 16  # frames or clips that a graph takes at once
NEEDS = {  # the extras
    "onnx": "onnx",
    "onnx-int8": "onnx",
    "openvino": "openvino",
    "openvino-int8": "onnx,openvino",
    "torch-export": "",
}
PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "onnx,openvino": ("onnx", "onnxruntime", "onnxscript", "openvino"),
}

Check = Callable[[Engine], dict[str, Any]]


@dataclass(frozen=True)
class Differences:
    """Of an export from torch: greatest difference over torch's greatest value, of each part."""

    parts: dict[str, float]  # trunk, parts, logits; or clip

    @property
    def greatest(self) -> float:
        """Over all parts; not a number counts as infinite."""
        return max(value if value == value else float("inf") for value in self.parts.values())


def export_model(
    recognizer: Recognizer,
    path: Path,
    form: Format,
    folder: Path,
    clips: Sequence[Tensor],
    check: Check | None = None,
    track: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Write the model of `recognizer`, which came from the file at `path`, to `folder`; returns its `export.json`.

    `clips` are the frames to check and to calibrate with, each (T, C, S, S), normalised. `check` is called with the new
    engine and says what else is to be kept in `export.json`; what it raises keeps the export from being written.

    Raises UsageError where a package is missing or the model has no such form, KineGRUError where the export differs
    from torch by more than `TOLERANCE`; then nothing is written.
    """
    model = recognizer.model
    require_packages(form)
    require_form(recognizer, path, form)
    found = graphs(folded(model), recognizer.preprocessing.size, recognizer.preprocessing.frames)
    steps = len(found) + 1
    manifest = _manifest(recognizer, path, form, found)
    traced = _traced_before(path) if form not in ("onnx", "torch-export") else None
    with atomic_directory(folder) as temporary, TemporaryDirectory(prefix="kinegru-") as scratch:
        temporary.chmod(folder.parent.stat().st_mode & 0o777)
        for number, (name, graph) in enumerate(found.items()):
            if track is not None:
                track(number, steps, name)
            calibration = _calibration(name, model, clips) if form in INT8 and name in QUANTISED else None
            plain = traced / f"{name}.onnx" if traced else Path(scratch) / f"{name}.onnx"
            _write(graph, name, form, temporary, plain, calibration)
        if track is not None:
            track(steps - 1, steps, "checking")
        _write_manifest(temporary, manifest)
        engine = ExportedEngine(temporary)
        differences = compare(TorchEngine(model, recognizer.device, fold=False), engine, clips[:COMPARED])
        if form not in INT8 and not differences.greatest <= TOLERANCE:
            raise KineGRUError(
                f"{folder}: not written, the exported model differs from torch: {_in_words(differences)} of the "
                f"greatest value, where {TOLERANCE:g} is allowed"
            )
        manifest["differences"] = {part: float(f"{value:.3g}") for part, value in differences.parts.items()}
        if check is not None:
            manifest |= check(engine)
        _write_manifest(temporary, manifest)
        del engine
    return manifest


def compare(torch_engine: Engine, engine: Engine, clips: Sequence[Tensor]) -> Differences:
    """Of the parts and the logits on whole clips (T, C, S, S), and on their first frame alone."""
    found: dict[str, float] = {}

    def note(part: str, expected: Tensor, got: Tensor) -> None:
        expected, got = expected.detach().cpu(), got.detach().cpu()
        if got.shape != expected.shape:
            found[part] = float("inf")
        else:
            worst = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
            found[part] = max(found.get(part, 0.0), worst if worst == worst else float("inf"))

    for clip in clips:
        for frames in (clip, clip[:1]):
            if engine.radius is not None:
                maps = torch_engine.trunk(frames)
                note("trunk", maps, engine.trunk(frames))
                for keep in (slice(None), slice(len(frames) // 2, None)):
                    note("neck", torch_engine.parts(maps, keep), engine.parts(maps.cpu(), keep))
            if engine.radius is not None or len(frames) == len(clip):
                note("logits", torch_engine.clip(frames[None]), engine.clip(frames[None]))
    return Differences(found)


def require_packages(form: Format) -> None:
    """Raises UsageError, with the extra to install, where a package of that form is missing."""
    for package in PACKAGES.get(NEEDS[form], ()):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            raise UsageError(f"format {form} needs {package}: pip install 'kinegru[{NEEDS[form]}]'") from None


def require_form(recognizer: Recognizer, path: Path, form: Format) -> None:
    """Raises UsageError where a model has no such form."""
    model = recognizer.model
    if form in INT8 and model.encoder.radius is None:
        raise UsageError(
            f"{path}: a {model.name} is one graph of whole clips, which has no int8 form; export it as onnx"
        )


# -- steps --------------------------------------------------------------------------------------------------------


def _write(
    graph: Graph,
    name: str,
    form: Format,
    folder: Path,
    plain: Path,
    calibration: Iterator[dict[str, np.ndarray]] | None,
) -> None:
    """One file of an export; `plain` is where the ONNX that others are made of lies, or is to lie."""
    target = folder / f"{name}{ENDINGS[form]}"
    with _quiet():
        if form == "torch-export":
            torch.export.save(_trace(graph), target)
            return
        if not plain.is_file():
            traced = torch.onnx.export(
                _trace(graph),
                dynamo=True,
                input_names=graph.inputs,
                output_names=graph.outputs,
                custom_translation_table={torch.ops.aten.lerp.Tensor: _lerp, torch.ops.aten.index.Tensor: _index},
                verbose=False,
            )
            assert traced is not None
            traced.save(os.fspath(plain), external_data=False)
        if calibration is not None:
            from kinegru.recognition.quantise import quantise

            with TemporaryDirectory(prefix="kinegru-") as scratch:
                smaller = Path(scratch) / plain.name
                quantise(plain, smaller, calibration, stem=name == "trunk")
                _convert(smaller, target)
        else:
            _convert(plain, target)


def _convert(plain: Path, target: Path) -> None:
    """An ONNX file to where it is to lie, in the form that its ending says."""
    if target.suffix == ".xml":
        import openvino

        model = openvino.Core().read_model(plain)  # its convert_model would call its makers' statistics
        openvino.save_model(model, target, compress_to_fp16=False)
    else:
        shutil.copyfile(plain, target)


def _trace(graph: Graph) -> torch.export.ExportedProgram:
    lengths: dict[str, Any] = {}
    shapes: tuple[Any, ...] = tuple(
        {axis: lengths.setdefault(name, torch.export.Dim(name, min=1, max=LONGEST)) for axis, name in axes.items()}
        for axes in graph.free
    )
    if graph.variadic and len(shapes) > graph.variadic:  # the last arguments are one, of any length
        shapes = (*shapes[: graph.variadic], shapes[graph.variadic :])
    with torch.no_grad():
        return torch.export.export(graph.module, graph.example, dynamic_shapes=shapes)


def _lerp(start: Any, end: Any, weight: Any) -> Any:
    """Three operators, where torch's own form has eight; a recurrence's step is made of little else."""
    from onnxscript import opset20 as op

    return op.Add(start, op.Mul(weight, op.Sub(end, start)))


def _index(x: Any, indices: Sequence[Any]) -> Any:
    """`maps[:, keep]` as one operator; torch's own form transposes the maps twice."""
    from onnxscript import opset20 as op

    *free, numbers = indices
    assert all(index is None for index in free), "only one axis is chosen from in these graphs"
    return op.Gather(x, numbers, axis=len(free))


def _traced_before(path: Path) -> Path | None:
    """The folder with an ONNX export of this model file by this version of the packages, if there is one."""
    folder = export_folder(path, "onnx")
    try:
        manifest = read_manifest(folder, path)
    except ModelFileError:
        return None
    return folder if manifest["versions"] == _versions("onnx") else None


def _versions(form: Format) -> dict[str, str]:
    return {package: metadata.version(package) for package in ("kinegru", "torch", *PACKAGES.get(NEEDS[form], ()))}


def _calibration(name: str, model: Any, clips: Sequence[Tensor]) -> Iterator[dict[str, np.ndarray]]:
    """What goes into the graph, frame by frame, or clip by clip."""
    for clip in clips:
        if name == "trunk":
            for frame in clip:
                yield {"frames": frame[None].numpy()}
        else:
            with torch.inference_mode():
                maps = model.trunk(clip[None])
            yield {"maps": maps.numpy(), "keep": np.arange(len(clip))}


def _manifest(recognizer: Recognizer, path: Path, form: Format, found: dict[str, Graph]) -> dict[str, Any]:
    model = recognizer.model
    described: dict[str, Any] = {}
    for name, graph in found.items():
        with torch.no_grad():
            out = graph.module(*graph.example)
        first = out[0] if isinstance(out, tuple) else out
        described[name] = {
            "inputs": list(graph.inputs),
            "outputs": list(graph.outputs),
            "shape": list(first.shape[2 if name == "neck" else 1 :]),
        }
    return {
        "format": form,
        "format_version": FORMAT_VERSION,
        "model": {"file": path.name, "fingerprint": fingerprint(path), "name": model.name, "options": model.options},
        "labels": list(recognizer.labels),
        "preprocessing": recognizer.preprocessing.to_dict(),
        "temperature": recognizer.temperature,
        "frame_rate": recognizer.frame_rate,
        "window": recognizer.clip_window,
        "radius": model.encoder.radius,
        "graphs": described,
        "versions": _versions(form),
    }


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _in_words(differences: Differences) -> str:
    return ", ".join(f"{part} {value:.2g}" for part, value in differences.parts.items())


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell on stdout and by warnings what they do; stdout belongs to results."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(disabled)
