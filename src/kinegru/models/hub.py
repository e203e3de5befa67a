"""Model files on a Hugging Face hub: a hub id `owner/name` stands wherever a model's path does.

* The file has one standard name, `model.safetensors`, in a folder or a repository.
* The hub's address and token are huggingface_hub's own settings (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE); what was
  downloaded once is read from its cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinegru.errors import ModelFileError, first_line
from kinegru.files import atomic_write
from kinegru.models.modelfile import FILE_NAME, LoadedModel, load_model, read_header, resolve, save_model
from kinegru.models.recognizer import ActionRecognizer


def save_pretrained(
    folder: str | os.PathLike[str],
    model: ActionRecognizer,
    labels: Sequence[str],
    preprocessing: dict[str, Any],
    provenance: dict[str, Any] | None = None,
    clip_statistics: dict[str, Any] | None = None,
) -> Path:
    """Write `model.safetensors` and a short model card, README.md, into a folder; returns the model file's path."""
    folder = Path(folder)
    path = save_model(folder / FILE_NAME, model, labels, preprocessing, provenance, clip_statistics)
    with atomic_write(folder / "README.md") as file:
        file.write(model_card(path))
    return path


def from_pretrained(path_or_hub_id: str | os.PathLike[str]) -> LoadedModel:
    """Load a model from a file, a folder or a hub id. Raises ModelFileError."""
    return load_model(resolve(path_or_hub_id))


def push_to_hub(
    path: str | os.PathLike[str],
    repo_id: str,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload a KineGRU model",
) -> str:
    """Upload a model file (or the folder that holds it) and a model card to `repo_id`, made where it does not exist.

    The file is checked first. Returns the commit's address. Raises ModelFileError where the file is no model or the
    hub refuses.
    """
    path = resolve(Path(path))
    load_model(path)
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "README.md").write_text(model_card(path, repo_id), encoding="utf-8")
        try:
            os.link(path, Path(folder, FILE_NAME))
        except OSError:  # another file system
            shutil.copyfile(path, Path(folder, FILE_NAME))
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))
        except Exception as error:
            raise ModelFileError(
                f"{repo_id}: the model was not uploaded ({type(error).__name__}: {first_line(error)})"
            ) from error


def model_card(path: str | os.PathLike[str], repo_id: str = "FOLDER") -> str:
    """A short README in Markdown from a model file's header: model, classes, metrics, how to use it."""
    header = read_header(path)
    provenance = header["provenance"]
    metrics = provenance.get("metrics") or {}
    lines = [
        "---",
        "library_name: kinegru",
        "pipeline_tag: video-classification",
        "tags: [kinegru, action-recognition]",
        "---",
        "",
        f"# {header['model']['name']}",
        "",
        f"Recognises {len(header['labels'])} actions in video: {', '.join(header['labels'])}.",
        "",
        f"    kinegru predict {repo_id} clip.mp4",
        "",
    ]
    for title, table in (("Metrics", metrics), ("Training", {k: v for k, v in provenance.items() if k != "metrics"})):
        if isinstance(table, dict) and table:
            lines += [f"## {title}", "", *(f"* {key}: {value}" for key, value in table.items()), ""]
    return "\n".join(lines)
