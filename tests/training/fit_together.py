"""One of several processes that train together: `fit_together.py CLIPS RUN OUT`, started by torchrun.

The run reads its clips anew every epoch, meets a broken one, is stopped in the middle of an epoch by a signal to the first
process alone, and goes on. OUT.safetensors holds the weights, OUT.json what was recorded.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import save_file

from kinegru.training.interrupts import Interrupted

# two processes with micro-batches of one see the clips that one process sees in micro-batches of two
ALONE = {"micro_batch": 2}
TOGETHER = {"micro_batch": 1}
SETTINGS: dict[str, Any] = {
    "options": {"dropout": 0.0}, "learning_rate": 1e-3, "max_bad_clips": 0.2, "ema": 0.6, "epochs": 2, "batch": 4,
}  # fmt: skip


def stop(done: int, total: int, text: str) -> None:
    """Asks for a stop after the fifth step, the second of the second epoch; `fit` calls it in the first process only."""
    if done == 5:
        signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    torch.set_num_threads(1)
    clips, run, out = map(Path, sys.argv[1:4])
    chosen = tiny.settings(**SETTINGS | TOGETHER)
    try:
        tiny.fit_tiny(clips, run, chosen, track=stop)
        sys.exit("it was not stopped")
    except Interrupted:
        pass
    model, result = tiny.fit_tiny(clips, run, chosen, resume=True)
    rank = torch.distributed.get_rank()
    save_file(tiny.weights(model), f"{out}-{rank}.safetensors")
    record = {"history": [vars(row) for row in result.history], "bad": sorted(result.bad_clips)}
    Path(f"{out}-{rank}.json").write_text(json.dumps(record))
    torch.distributed.destroy_process_group()
