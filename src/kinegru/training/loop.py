"""The training loop: epochs, steps, micro-batches; what it promises is listed here.

* The course of a run depends on its settings and seed alone: order, views and dropout are the same after a resume, and
  (dropout and mix-up aside, of which each process draws its own) with one process or several.
* A loss is a mean over the clips of the whole batch, however it is cut into micro-batches and processes.
* Logits (n, streams, K) of a model in training mode mean a loss a stream, of which the mean is taken; the classifier's
  `fuse` makes the scores (n, K) of them that are counted.
* The trained part never sees the test clips; the best epoch is chosen on validation clips.
* Ctrl-C and SIGTERM save a checkpoint at the next step and say how to go on; a kill loses `checkpoint_minutes` at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kinegru.data.dataset import Batch, ClipDataset, load_batches
from kinegru.data.feature_cache import CachedDataset
from kinegru.errors import DataError, UsageError
from kinegru.files import content_digest
from kinegru.training.batches import Step, plan_epoch
from kinegru.training.checkpoint import Checkpoint, Progress
from kinegru.training.history import Epoch, TensorBoard, write_history
from kinegru.training.inference import FromStart, Scores, score_clips
from kinegru.training.interrupts import Interrupted, stop_requests
from kinegru.training.mixup import mix_clips
from kinegru.training.optimizer import make_optimizer
from kinegru.training.schedule import learning_rate
from kinegru.training.settings import TrainSettings
from kinegru.training.sync_norm import synchronise_batch_norms

Tracker = Callable[[int, int, str], None]  # steps done, steps in all, what is going on


@dataclass(frozen=True)
class FitResult:
    """What came of a run; the recogniser itself holds the chosen weights."""

    history: list[Epoch]
    best_epoch: int
    bad_clips: dict[str, str]


def fit(
    recognizer: nn.Module,
    train: ClipDataset | CachedDataset,
    validation: ClipDataset | CachedDataset | None,
    settings: TrainSettings,
    run: Path,
    accelerator: Accelerator,
    *,
    resume: bool = False,
    bad_clips: dict[str, str] | None = None,
    track: Tracker | None = None,
) -> FitResult:
    """Train `recognizer` (an `ActionRecognizer` whose profile is set) and leave the best epoch's weights in it.

    A `CachedDataset` gives maps of the frozen part, a `ClipDataset` frames. `run` receives `history.csv` and
    `checkpoint/`. Raises `DataError` for too many unreadable clips or a non-finite loss, `Interrupted` after Ctrl-C.
    """
    return _Fit(recognizer, train, validation, settings, run, accelerator, bad_clips or {}, track).run(resume)


class _Fit:
    def __init__(self, recognizer, train, validation, settings, run, accelerator, bad_clips, track) -> None:
        self.settings, self.folder, self.accelerator, self.track = settings, run, accelerator, track
        self.train, self.validation, self.recognizer = train, validation, recognizer
        world = accelerator.num_processes
        if len(train) < world:  # each needs a clip in every batch
            raise UsageError(f"{len(train)} clips to train on are too few for {world} processes")
        if world > 1:
            synchronise_batch_norms(recognizer, accelerator.device)
        model = FromStart(recognizer, cached=isinstance(train, CachedDataset)).to(accelerator.device)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(recognizer, settings))
        self.parameters = parameters
        self.average = None
        if settings.ema:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
            accelerator.register_for_checkpointing(self.average)
        self.progress = Progress(clips=fingerprint(train), bad_clips=dict(bad_clips))
        self.checkpoint = Checkpoint(run / "checkpoint", accelerator, self.progress)
        board = settings.tensorboard and accelerator.is_main_process
        self.tensorboard = TensorBoard(run / "tensorboard") if board else None
        self.steps_an_epoch = len(self._plan(0))
        self.empty_shape = () if isinstance(train, CachedDataset) else _shape_of_frames(train)
        self.saved_at = time.monotonic()

    def run(self, resume: bool) -> FitResult:
        torch.manual_seed(self.settings.seed + 1_000_003 * self.accelerator.process_index)  # each its own dropout
        if resume and self.checkpoint.exists():
            self._load_state()
        else:
            self.checkpoint.remove()
        with stop_requests() as stop:
            while self.progress.epoch < self.settings.epochs and not self._patience_is_over():
                self._one_epoch(stop)
        self._save(force=True)
        if self.progress.best_weights:
            self.recognizer.load_state_dict(self.progress.best_weights, strict=False)
        return FitResult(self.progress.history, self.progress.best_epoch, self.progress.bad_clips)

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _plan(self, epoch: int) -> list[Step]:
        s, a = self.settings, self.accelerator
        return plan_epoch(
            len(self.train), s.batch, epoch=epoch, seed=s.seed, views=s.views, augmented=s.augment,
            micro_batch=s.micro_batch, rank=a.process_index, world=a.num_processes,
        )  # fmt: skip

    def _one_epoch(self, stop: threading.Event) -> None:
        progress, began = self.progress, time.monotonic()
        before = progress.seconds
        steps = self._plan(progress.epoch)[progress.step :]
        batches = iter(self._load(steps))
        self.model.train()
        for step in steps:
            self._one_step(step, batches)
            progress.step += 1
            progress.seconds = before + time.monotonic() - began
            self._report(f"epoch {progress.epoch + 1}/{self.settings.epochs}{self._latest()}")
            if self._anyone(stop.is_set()):
                self._save(force=True)
                raise Interrupted(f"stopped; the state is saved in {self.checkpoint.folder}")
            if progress.step < self.steps_an_epoch:
                self._save()
        self._end_epoch(before, began)

    def _load(self, steps: list[Step]) -> Iterable[Batch]:
        micro_batches = [micro for step in steps for micro in step.micro_batches]
        pin_memory = self.accelerator.device.type == "cuda"
        return load_batches(self.train, micro_batches, _workers(self.train, self.settings), pin_memory=pin_memory)

    def _one_step(self, step: Step, batches: Iterator[Batch]) -> None:
        s, device = self.settings, self.accelerator.device
        rate = learning_rate(s, self.progress.epoch * self.steps_an_epoch + self.progress.step, self.steps_an_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        learnt = False
        for number in range(len(step.micro_batches)):
            batch = next(batches)
            self._note_bad(batch)
            inputs = batch.inputs
            if inputs is None:
                if self.accelerator.num_processes == 1:
                    continue
                inputs = torch.zeros(self.empty_shape)  # no clip at all, but every process has to take part
            self.empty_shape, learnt = (0, *inputs.shape[1:]), True
            inputs = inputs.to(device, non_blocking=True).float()  # cached maps come as they are stored
            targets = batch.targets.to(device)
            inputs, others, share = mix_clips(inputs, targets, s.mixup)
            last = number == len(step.micro_batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    logits = self.model(inputs)  # (n, K), or (n, streams or members, K)
                losses = self._losses(logits, targets)
                if share < 1:
                    losses = share * losses + (1 - share) * self._losses(logits, others)
                self._require_finite(losses, batch)
                # DDP averages gradients over processes: times their number gives the mean over the whole batch
                self.accelerator.backward(losses * self.accelerator.num_processes / step.clips)
            scores = logits.detach() if logits.dim() == 2 else self.recognizer.classifier.fuse(logits.detach())
            self._count(scores, targets, losses.detach())
        if not learnt:  # not one clip could be read
            return
        if s.clip_norm:
            self.accelerator.clip_grad_norm_(self.parameters, s.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))

    def _end_epoch(self, before: float, began: float) -> None:
        progress, s = self.progress, self.settings
        total = self._pool()
        self._require_few_bad()
        clips = max(total["clips"], 1)
        scores = self._validate()
        row = Epoch(
            epoch=progress.epoch + 1,
            train_loss=total["loss"] / clips,
            train_top1=total["top1"] / clips,
            train_top5=total["top5"] / clips,
            val_loss=scores.mean_loss() if scores else None,
            val_top1=scores.top(1) if scores else None,
            val_top5=scores.top(5) if scores else None,
            learning_rate=self.optimizer.param_groups[-1]["lr"],
            seconds=before + time.monotonic() - began,
        )
        progress.history.append(row)
        value = row.goodness(s.select)
        if value is None or not progress.best_value or value > progress.best_value:
            progress.best_epoch, progress.best_value = row.epoch, value or ()
            progress.best_weights = self._weights()
        progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
        progress.sums = Progress().sums
        if self.accelerator.is_main_process:
            write_history(self.folder / "history.csv", progress.history)
            if self.tensorboard is not None:
                self.tensorboard.write(row)
        self._save()

    # -- parts ----------------------------------------------------------------------------------------------------

    def _evaluated(self) -> FromStart:
        average: Any = self.average
        return self.accelerator.unwrap_model(self.model) if average is None else average.module

    def _validate(self) -> Scores | None:
        if self.validation is None or not len(self.validation):
            return None
        model = self._evaluated().eval()
        size = self.settings.micro_batch or self.settings.batch
        workers = _workers(self.validation, self.settings)
        scores = score_clips(model, self.validation, self.accelerator, size, workers)
        bad = {str(self.validation.clips[index].path): reason for index, reason in scores.errors.items()}
        self.progress.bad_clips |= bad
        require_few_bad(bad, len(self.validation), self.settings.max_bad_clips)
        if not len(scores.indices):
            raise DataError("no validation clip could be read: see `kinegru check`")
        return scores

    def _weights(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, on the CPU: weights with gradients and moving statistics."""
        recognizer = self._evaluated().recognizer
        trained = {name for name, p in self.recognizer.named_parameters() if p.requires_grad}
        buffers = {name for name, _ in recognizer.named_buffers()}
        state = recognizer.state_dict()
        return {name: t.detach().cpu().clone() for name, t in state.items() if name in trained or name in buffers}

    def _losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, summed over the clips, of several streams or members their mean."""
        streams = logits.float() if logits.dim() == 3 else logits.float()[:, None]  # (n, streams, K)
        count, smoothing = streams.shape[1], self.settings.label_smoothing
        targets = targets.repeat_interleave(count)  # (n · streams,)
        losses = F.cross_entropy(
            streams.flatten(0, 1), targets, reduction="sum", label_smoothing=smoothing, ignore_index=-1
        )  # fmt: skip
        return losses / count

    def _count(self, logits: torch.Tensor, targets: torch.Tensor, losses: torch.Tensor) -> None:
        known = targets >= 0
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices  # (n, 5)
        hits = best == targets[:, None]
        sums = self.progress.sums
        sums["loss"] += float(losses)
        sums["top1"] += int(hits[:, 0].sum())
        sums["top5"] += int(hits.sum())
        sums["clips"] += int(known.sum())

    def _note_bad(self, batch: Batch) -> None:
        if batch.errors:
            named = {str(self.train.clips[index].path): reason for index, reason in batch.errors.items()}
            self.progress.bad_clips |= named
            self._require_few_bad()

    def _require_few_bad(self) -> None:
        """Not too many among the training clips; `bad_clips` also names others."""
        bad = self.progress.bad_clips
        mine = {str(clip.path): bad[str(clip.path)] for clip in self.train.clips if str(clip.path) in bad}
        require_few_bad(mine, len(self.train), self.settings.max_bad_clips)

    def _pool(self) -> dict[str, float]:
        """Move what all processes counted in this epoch to the first one, whose progress is saved; gives the sums."""
        progress, first = self.progress, self.accelerator.is_main_process
        parts = gather_object([(progress.sums, progress.bad_clips)])
        total = {name: sum(sums[name] for sums, _ in parts) for name in progress.sums}
        progress.sums = dict(total) if first else Progress().sums
        progress.bad_clips = {name: why for _, bad in parts for name, why in bad.items()}
        return total

    def _require_finite(self, losses: torch.Tensor, batch: Batch) -> None:
        if not torch.isfinite(losses):
            names = ", ".join(str(self.train.clips[index].path) for index in batch.indices)
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.step + 1}"
            raise DataError(f"the loss is {losses.item()} in {where}; lower --learning-rate or look at: {names}")

    def _patience_is_over(self) -> bool:
        p, patience = self.progress, self.settings.patience
        return bool(patience and p.best_epoch and p.epoch - p.best_epoch >= patience)

    def _anyone(self, flag: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum"))

    def _save(self, force: bool = False) -> None:
        due = time.monotonic() - self.saved_at > 60 * self.settings.checkpoint_minutes
        if force or self._anyone(due):
            self._pool()
            self.checkpoint.save()
            self.saved_at = time.monotonic()

    def _load_state(self) -> None:
        clips = self.progress.clips
        self.checkpoint.load()
        if self.progress.clips != clips:
            raise DataError(
                f"{self.checkpoint.folder}: this run began with other training clips than there are now (some were "
                "added, removed, mended or broken); --overwrite starts anew"
            )
        if not self.accelerator.is_main_process:
            self.progress.sums = Progress().sums

    def _latest(self) -> str:
        if not self.progress.history:
            return ""
        row = self.progress.history[-1]
        held = "" if row.val_top1 is None else f" val {row.val_top1:.1%}"
        return f" · loss {row.train_loss:.3f} top-1 {row.train_top1:.1%}{held}"

    def _report(self, text: str) -> None:
        if self.track is not None and self.accelerator.is_main_process:
            done = self.progress.epoch * self.steps_an_epoch + self.progress.step
            self.track(done, self.settings.epochs * self.steps_an_epoch, text)


def _workers(dataset: ClipDataset | CachedDataset, settings: TrainSettings) -> int:
    """Decoding takes processes; reading cached maps does not."""
    return 0 if isinstance(dataset, CachedDataset) else settings.decoders


def _shape_of_frames(dataset: ClipDataset) -> tuple[int, ...]:
    p = dataset.preprocessing
    return (0, p.frames, p.channels, p.size, p.size)


def fingerprint(dataset: ClipDataset | CachedDataset) -> str:
    """Hexadecimal digits that change with the clips of a data set, their content, order and labels."""
    names = "\n".join(
        f"{clip.label}/{clip.path.name} {clip.group} {content_digest(clip.path)}" for clip in dataset.clips
    )
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


def require_few_bad(bad: dict[str, str], clips: int, share: float) -> None:
    """Raise `DataError` where more than `share` of `clips` cannot be read; the line names the first."""
    if len(bad) > share * clips:
        name, reason = next(iter(bad.items()))
        raise DataError(
            f"{len(bad)} of {clips} clips cannot be read, more than --max-bad-clips {share:g} allows; "
            f"the first: {reason if name in reason else f'{name}: {reason}'}; `kinegru check` lists all"
        )
