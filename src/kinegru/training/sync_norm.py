"""Batch norm over the clips of all processes, also on a CPU.

`torch.nn.SyncBatchNorm` runs on GPUs only. With two CPU processes, half a batch each, ordinary batch norm would see
other statistics than one process does, and another model would come out. The sums here are reduced with gradients, so
the result is that of the whole batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

import kinegru.models.torchvision_ops  # noqa: F401  isort: skip  (before timm)
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kinegru.models.fusion import BatchNorm


class SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor; its gradient is the sum of every process's gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class ProcessWideBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose training statistics are those of every process together. Input (N, C, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalise(self, x)


class ProcessWideBatchNorm3d(nn.BatchNorm3d):
    """The same for 3-D networks. Input (N, C, T, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalise(self, x)


class ProcessWideBatchNormAct2d(BatchNormAct2d):
    """The same for timm's batch norm with an activation behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(normalise(self, x)))


def normalise(norm: nn.BatchNorm2d | nn.BatchNorm3d, x: torch.Tensor) -> torch.Tensor:
    """Batch norm of `x` (N, C, ...), with the statistics of all processes while training."""
    if not norm.training or not dist.is_initialized() or dist.get_world_size() == 1:
        return _BatchNorm.forward(norm, x)
    dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 counts to 256
    others = [0, *range(2, x.dim())]  # all but the channels
    along = (-1,) + (1,) * (x.dim() - 2)  # a value a channel, over places
    count = x.new_full((1,), x.numel() / x.shape[1])
    first = SumOverProcesses.apply(torch.cat([x.sum(dim=others), count]))  # (C + 1,)
    total = first[-1].detach().clamp_min(1)  # no process may have a clip that can be read
    mean = first[:-1] / total
    centred = x - mean.view(along)
    variance = SumOverProcesses.apply(centred.square().sum(dim=others)) / total
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            momentum = (norm.momentum or 0.0) * (first[-1] > 0)
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(variance * total / (total - 1).clamp_min(1), momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    y = centred * scale.view(along)
    return (y if norm.bias is None else y + norm.bias.view(along)).to(dtype)


PROCESS_WIDE: dict[type, type] = {
    nn.BatchNorm2d: ProcessWideBatchNorm2d,
    nn.BatchNorm3d: ProcessWideBatchNorm3d,
    BatchNorm: ProcessWideBatchNorm2d,
    BatchNormAct2d: ProcessWideBatchNormAct2d,
}


def synchronise_batch_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Make the batch norms of `module` span all processes: torch's own on a GPU, ours elsewhere. Changes in place.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    >>> synchronise_batch_norms(net, torch.device("cpu"))[1].__class__.__name__
    'ProcessWideBatchNorm2d'
    """
    if device.type == "cuda":
        return convert_sync_batchnorm(module)
    for child in module.modules():
        child.__class__ = PROCESS_WIDE.get(type(child), type(child))
    return module
