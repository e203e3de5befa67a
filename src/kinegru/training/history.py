"""`history.csv`: one row an epoch, written whole after each; TensorBoard beside it where asked for."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from kinegru.errors import UsageError
from kinegru.files import atomic_write


@dataclass
class Epoch:
    """One row of the history. Losses in nats a clip, top-1 and top-5 as shares of 1; None without validation clips."""

    epoch: int  # 1 is the first
    train_loss: float
    train_top1: float
    train_top5: float
    val_loss: float | None
    val_top1: float | None
    val_top5: float | None
    learning_rate: float  # of the last step
    seconds: float

    def goodness(self, select: str) -> tuple[float, float] | None:
        """Larger is better, by `select` (top1 or loss) and then by the other; None where nothing was validated."""
        if self.val_loss is None or self.val_top1 is None:
            return None
        return (self.val_top1, -self.val_loss) if select == "top1" else (-self.val_loss, self.val_top1)


COLUMNS = [column.name for column in dataclasses.fields(Epoch)]


def write_history(path: Path, epochs: list[Epoch]) -> None:
    """Write all rows to `path`, atomically."""
    with atomic_write(path) as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for epoch in epochs:
            values = dataclasses.astuple(epoch)
            rows.writerow("" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values)


class TensorBoard:
    """The same rows as TensorBoard scalars, in `folder`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError("--tensorboard needs the extra: pip install 'kinegru[tensorboard]'") from None
        self._writer = SummaryWriter(str(folder))

    def write(self, epoch: Epoch) -> None:
        """Add one row."""
        for name, value in dataclasses.asdict(epoch).items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name.replace("_", "/", 1), value, epoch.epoch)
        self._writer.flush()
