"""The processes and the device of a training run: one on a laptop, many under `accelerate launch` or torchrun."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

from kinegru.errors import KineGRUError, UsageError
from kinegru.training.settings import TrainSettings

T = TypeVar("T")


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """accelerate, on the asked device and in the precision that the device has."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is to be seen here")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: no Apple GPU is to be seen here")
    cpu = settings.device == "cpu"
    precision: str = settings.precision
    if precision == "auto":
        cuda = torch.cuda.is_available() and not cpu
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "no"
    if AcceleratorState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # this run may differ from the one before it
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
    if precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would quietly compute in float32
        raise UsageError("--precision fp16 needs a GPU: give no or bf16 on a CPU")
    world = accelerator.num_processes
    if world > 1 and settings.batch < 2 * world:  # batches are evened out, and each process needs a clip of every one
        raise UsageError(f"--batch {settings.batch} is too small for {world} processes: give {2 * world} or more")
    return accelerator


def on_main_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in one process and give its result, or its error, to all."""
    state = PartialState()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = function(*arguments)
        except KineGRUError as error:
            outcome[1] = error
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def describe_machine(accelerator: Accelerator) -> str:
    """Processor, cores and accelerator, in words."""
    if accelerator.device.type == "cuda":
        return f"{torch.cuda.get_device_name()} ×{accelerator.num_processes}"
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    return f"{platform.machine()} CPU, {os.cpu_count()} cores{processes}"
