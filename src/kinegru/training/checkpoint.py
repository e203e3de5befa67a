"""Where a run stands, on disk: weights, optimiser, random states, history, best weights so far.

The folder is written beside its place and swapped in, so a kill at any moment leaves a whole checkpoint. It is read by
`--resume` and holds pickled random states: resume your own runs, share `model.safetensors`.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from kinegru.errors import DataError, KineGRUError
from kinegru.training.history import Epoch


@dataclass
class Progress:
    """What accelerate does not keep: the place in the run, the sums of the running epoch, the best weights."""

    clips: str = ""  # fingerprint of the training clips
    epoch: int = 0  # running epoch, 0 is the first
    step: int = 0  # optimiser steps done in it
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "top1": 0.0, "top5": 0.0, "clips": 0.0})
    seconds: float = 0.0  # spent in the running epoch
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0  # 1 is the first, 0 is none yet
    best_value: tuple[float, ...] = ()
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    bad_clips: dict[str, str] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values and tensors."""
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return state | {"history": [dataclasses.asdict(epoch) for epoch in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, [Epoch(**row) for row in value] if name == "history" else value)


class Checkpoint:
    """One folder with the newest state of a run."""

    def __init__(self, folder: Path, accelerator: Accelerator, progress: Progress) -> None:
        self.folder = folder
        self.accelerator = accelerator
        accelerator.register_for_checkpointing(progress)

    @property
    def _old(self) -> Path:
        return self.folder.with_name(self.folder.name + ".old")

    @property
    def _new(self) -> Path:
        return self.folder.with_name(self.folder.name + ".new")

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.folder.is_dir() or self._old.is_dir()

    def save(self) -> None:
        """Write the state; called by every process at the same step."""
        new = self._new
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            self.accelerator.save_state(str(new))
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise KineGRUError(f"{self.folder}: cannot be written ({reason}); is the disk full?") from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if self.folder.exists():  # else the last kill came between two renames, and the old state is the only one
                shutil.rmtree(self._old, ignore_errors=True)
                self.folder.rename(self._old)
            new.rename(self.folder)
            shutil.rmtree(self._old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def load(self) -> None:
        """Restore the newest whole state. Raises DataError where it is damaged."""
        folder = self.folder if self.folder.is_dir() else self._old
        try:
            self.accelerator.load_state(str(folder))
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DataError(f"{folder}: cannot be read ({reason}); --overwrite starts the run anew") from error

    def remove(self) -> None:
        """Forget the state: the run is complete, or starts anew."""
        if self.accelerator.is_main_process:
            for folder in (self.folder, self._old, self._new):
                shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()
