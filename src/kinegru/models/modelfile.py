"""One `.safetensors` file is the whole model: weights, and in its header all that using them takes.

* The header's metadata are JSON strings: `format` ("kinegru"), `format_version`, `model` (name, options, number of
  classes), `labels`, `preprocessing`, `clip_statistics`, `provenance` (data, split, seed, versions, metrics).
* Nothing in the file is code, and loading it needs neither the ImageNet weights nor a network.
* It is written under a temporary name and renamed; loading checks all of it and refuses with one line.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from kinegru.errors import ModelFileError, UsageError, first_line
from kinegru.files import atomic_write
from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.zoo import create_model

FORMAT = "kinegru"
FORMAT_VERSION = 1
FILE_NAME = "model.safetensors"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_REQUIRED = {"model": dict, "labels": list, "preprocessing": dict, "clip_statistics": dict, "provenance": dict}


@dataclass
class LoadedModel:
    """What a model file holds. `labels[k]` names logit k; the model is in eval mode on the CPU."""

    model: ActionRecognizer
    labels: list[str]
    preprocessing: dict[str, Any]  # size, frames, fit, interpolation, mean, std
    provenance: dict[str, Any] = field(default_factory=dict)  # data, split, seed, versions, metrics
    clip_statistics: dict[str, Any] = field(default_factory=dict)  # of the training clips' durations, in seconds


class ModelFile:
    """What a model file holds, as in `LoadedModel`; its weights are read, and the model built, when it is asked for.

    Raises ModelFileError as `load_model` does: for the header at once, for the rest at the first use of `model`; there
    also where another file has taken its place since.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._written = _when_written(self.path)
        header = read_header(self.path)
        self.labels: list[str] = header["labels"]
        self.preprocessing: dict[str, Any] = header["preprocessing"]
        self.provenance: dict[str, Any] = header["provenance"]
        self.clip_statistics: dict[str, Any] = header["clip_statistics"]

    @functools.cached_property
    def model(self) -> ActionRecognizer:
        """In eval mode on the CPU."""
        loaded = load_model(self.path)
        if _when_written(self.path) != self._written:
            raise ModelFileError(f"{self.path}: was written anew since it was opened; open it again")
        return loaded.model


def save_model(
    path: str | os.PathLike[str],
    model: ActionRecognizer,
    labels: Sequence[str],
    preprocessing: dict[str, Any],
    provenance: dict[str, Any] | None = None,
    clip_statistics: dict[str, Any] | None = None,
) -> Path:
    """Write a model built by `create_model` and everything needed to use it to one file; returns its path.

    Raises ModelFileError where the labels do not fit the model or a value is not JSON.

    >>> import tempfile
    >>> model = create_model("mobilenet_convgru_mcam_aff", 2, backbone="mobilenetv2_050", width=16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_model(Path(folder) / "model.safetensors", model, ["run", "walk"], {"size": 96})
    ...     load_model(path).labels
    ['run', 'walk']
    """
    path = Path(path)
    labels = list(labels)
    _check_labels(path, labels, model.num_classes)
    if not model.name:
        raise ModelFileError(f"{path}: not written, only a model that create_model built can be built again")
    parts: dict[str, Any] = {
        "model": {"name": model.name, "options": model.options, "num_classes": model.num_classes},
        "labels": labels,
        "preprocessing": preprocessing,
        "clip_statistics": clip_statistics or {},
        "provenance": provenance or {},
    }
    header = {"format": FORMAT, "format_version": str(FORMAT_VERSION)}
    for key, value in parts.items():
        try:
            header[key] = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: not written, {key} cannot be put as JSON ({error})") from error
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    with atomic_write(path, "wb") as file:
        file.write(to_bytes(tensors, header))
    return path


def load_model(path: str | os.PathLike[str]) -> LoadedModel:
    """Read a model file, check all of it, and build the model in eval mode on the CPU.

    Raises ModelFileError, one line: no such file, not safetensors, truncated, not KineGRU's, of a newer format, labels
    or preprocessing missing, labels that do not fit, tensors missing, unknown or of another shape.
    """
    path = Path(path)
    header, tensors = _read(path)
    parts = _parts(path, header)
    description, labels = parts["model"], parts["labels"]
    name, options, num_classes = (description.get(key) for key in ("name", "options", "num_classes"))
    if not isinstance(name, str) or not isinstance(options, dict) or not isinstance(num_classes, int):
        raise ModelFileError(f"{path}: damaged, its header does not say which model it holds")
    _check_labels(path, labels, num_classes)
    try:
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced
            model = create_model(name, num_classes, **(options | {"backbone_weights": "none"}))
    except UsageError as error:
        raise ModelFileError(f"{path}: holds a model this version of kinegru cannot build: {error}") from error
    _check_tensors(path, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    return LoadedModel(model.eval(), labels, parts["preprocessing"], parts["provenance"], parts["clip_statistics"])


def resolve(path_or_hub_id: str | os.PathLike[str]) -> Path:
    """A model file, a folder with `model.safetensors`, or a hub id `owner/name[@revision]` -> a local file's path.

    What exists locally wins. Raises ModelFileError where there is nothing, or the hub cannot give it.

    >>> resolve("no_such_file.safetensors")
    Traceback (most recent call last):
    kinegru.errors.ModelFileError: no_such_file.safetensors: no such model file, folder or hub id
    """
    path = Path(path_or_hub_id)
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise ModelFileError(f"{path}: holds no {FILE_NAME}")
        return path / FILE_NAME
    text = os.fspath(path_or_hub_id)
    if not _HUB_ID.fullmatch(text) or text.startswith(".") or path.suffix in (".safetensors", ".pth", ".pt"):
        raise ModelFileError(f"{text}: no such model file, folder or hub id")
    repo_id, _, revision = text.partition("@")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id, FILE_NAME, revision=revision or None))
    except Exception as error:  # unreachable, unknown, private, without the file, offline and not in its cache
        raise ModelFileError(
            f"{text}: neither a local file nor a model the hub gives ({type(error).__name__}: {first_line(error)})"
        ) from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything in a model file but its weights: model, labels, preprocessing, clip_statistics, provenance."""
    return _parts(Path(path), _read(Path(path), tensors=False)[0])


def _when_written(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from another that took its place; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    if path.is_dir():
        raise ModelFileError(f"{path}: is a folder, give the model file in it (such as {path / FILE_NAME})")
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys()) if tensors else []
            return file.metadata() or {}, {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, ValueError) as error:
        reason = _why_unreadable(path)
        raise ModelFileError(f"{path}: {reason}") from error


def _why_unreadable(path: Path) -> str:
    """A file that safetensors refuses: cut short, or something else altogether."""
    size = path.stat().st_size
    if size == 0:
        return "is empty: copy the model file again"
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if len(start) == 9 and start[8:] == b"{" and length < 100_000_000:
        return "is truncated or damaged: copy the model file again"
    return f"is not a model file: give the {FILE_NAME} that kinegru train wrote"


def _parts(path: Path, header: dict[str, str]) -> dict[str, Any]:
    if header.get("format") != FORMAT:
        raise ModelFileError(
            f"{path}: holds weights but is no KineGRU model: give the {FILE_NAME} that kinegru train wrote"
        )
    version = header.get("format_version", "")
    if not version.isdecimal():
        raise ModelFileError(f"{path}: damaged, its format version is {version!r}")
    if int(version) > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: written by a newer kinegru (format {version}, this one reads {FORMAT_VERSION}): upgrade kinegru"
        )
    parts: dict[str, Any] = {}
    for key, kind in _REQUIRED.items():
        if key not in header:
            raise ModelFileError(f"{path}: has no {key} in its header, so it cannot be used")
        try:
            parts[key] = json.loads(header[key])
        except ValueError as error:
            raise ModelFileError(f"{path}: damaged, {key} in its header is not JSON") from error
        if not isinstance(parts[key], kind):
            raise ModelFileError(f"{path}: damaged, {key} in its header is of the wrong kind")
    if not parts["preprocessing"]:
        raise ModelFileError(f"{path}: has no preprocessing in its header, so it cannot be used")
    return parts


def _check_labels(path: Path, labels: list[Any], num_classes: int) -> None:
    if not all(isinstance(label, str) for label in labels):
        raise ModelFileError(f"{path}: its labels are not all text")
    if len(labels) != num_classes:
        raise ModelFileError(f"{path}: has {len(labels)} labels for a model of {num_classes} classes")
    if len(set(labels)) != len(labels):
        raise ModelFileError(f"{path}: has a label twice")


def _check_tensors(path: Path, own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    for key, tensor in own.items():
        if key not in given:
            raise ModelFileError(f"{path}: damaged, it lacks the weights {key}")
        if given[key].shape != tensor.shape:
            raise ModelFileError(
                f"{path}: damaged, {key} has shape {tuple(given[key].shape)}, the model needs {tuple(tensor.shape)}"
            )
        if given[key].is_floating_point() != tensor.is_floating_point():
            raise ModelFileError(f"{path}: damaged, {key} holds {given[key].dtype}, the model needs {tensor.dtype}")
        if not torch.isfinite(given[key]).all():
            raise ModelFileError(f"{path}: {key} holds values that are not finite: the training it came from diverged")
    unknown = [key for key in given if key not in own]
    if unknown:
        raise ModelFileError(f"{path}: damaged, it holds weights {unknown[0]} that the model does not have")
