"""Two processes give the model that one gives with the same global batch, to float tolerance."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from kinegru.__main__ import main
from kinegru.data.dataset import ClipDataset
from kinegru.errors import UsageError
from kinegru.models.recognizer import ActionRecognizer
from kinegru.training.interrupts import Interrupted
from kinegru.training.processes import make_accelerator
from kinegru.training.sync_norm import ProcessWideBatchNorm2d

SETTINGS: dict[str, Any] = {
    "options": {"dropout": 0.0}, "learning_rate": 1e-3, "max_bad_clips": 0.2, "ema": 0.6, "epochs": 2, "batch": 4,
}  # fmt: skip
# two processes with micro-batches of one see the clips that one process sees in micro-batches of two
ALONE, TOGETHER = {"micro_batch": 2}, {"micro_batch": 1}


def launch(*command: object) -> str:
    """Run a command and what it starts to their end; gives stdout."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)], env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        printed, errors = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors[-3000:]
    return printed


def assert_same_course(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Equal to float tolerance.

    Adam divides a gradient by its size: where it is next to zero its rounding is all there is, so one weight in a
    thousand may be off by a part of a step.
    """
    assert one.keys() == other.keys()
    differences = torch.cat([(one[name].double() - other[name]).abs().flatten() for name in one])
    assert (differences > 2e-5).double().mean() < 1e-3 and differences.max() < 0.5 * SETTINGS["learning_rate"]


@pytest.mark.usefixtures("no_reports")
def test_accelerate_launch_with_two_processes_gives_the_model_of_one(clips: Path, tmp_path: Path) -> None:
    """The whole verb, from the cache, which the two fill together; a bad clip leaves seven to train on, an odd number.

    `--multi_gpu` is accelerate's word for more than one process here, also where there is no GPU: with `--cpu` it
    starts one process only, whatever `--num_processes` says.
    """
    data = tiny.spoil(clips, tmp_path / "data", "run/ann_run.mp4")
    options = SETTINGS | {"split": "leave-one-group-out:fay"}
    one = tiny.command(data, tmp_path / "one", cache=tmp_path / "cache-1", **options | ALONE)
    two = tiny.command(data, tmp_path / "two", cache=tmp_path / "cache-2", **options | TOGETHER)
    processes = ["--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"]
    printed = launch("accelerate.commands.launch", "--multi_gpu", *processes, "-m", "kinegru", *two)
    assert printed.count("top-1") == 1  # one process speaks
    assert main(one) == 0
    records = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert [record["context"]["machine"].endswith("2 processes") for record in records] == [False, True]
    assert records[0]["bad_clips"].keys() == records[1]["bad_clips"].keys() == {"run/ann_run.mp4"}
    files = [sorted(p.name for p in (tmp_path / name).rglob("*.safetensors")) for name in ("cache-1", "cache-2")]
    assert files[0] == files[1] and len(files[0]) == 7 * 2 + 2 + 2
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    statistics = [name for name in weights[0] if "classifier.fusion" in name and "running" in name]
    assert statistics  # MCAM's batch norms, over the clips of both processes
    for name in statistics:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-5)
    assert_same_course(*weights)


# -- two processes without the verb: this one, twice --------------------------------------------------------------


def train_together(rank: int, port: int, clips: Path, run: Path, out: Path) -> None:
    """Reads clips anew every epoch, is stopped inside an epoch by a signal to the first process alone, and goes on."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)

    def stop(done: int, total: int, text: str) -> None:
        if done == 5:  # of six steps; this is called in the first process only
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        tiny.fit_tiny(clips, run, tiny.settings(**SETTINGS | TOGETHER), track=stop)
    model, result = tiny.fit_tiny(clips, run, tiny.settings(**SETTINGS | TOGETHER), resume=True)
    save_file(tiny.weights(model), f"{out}-{rank}.safetensors")
    record = {"history": [vars(row) for row in result.history], "bad": sorted(result.bad_clips)}
    Path(f"{out}-{rank}.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="--batch 3 is too small for 2 processes: give 4 or more"):
        make_accelerator(tiny.settings(batch=3))
    torch.distributed.destroy_process_group()


def normalise_together(rank: int, port: int) -> None:
    """Half of a batch in bfloat16, more values a channel than bfloat16 can count."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    batch = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    whole, shared = torch.nn.BatchNorm2d(3), ProcessWideBatchNorm2d(3)
    expected = whole(batch.float())
    half = slice(4 * rank, 4 * rank + 4)
    y = shared(batch[half])
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected[half], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(shared.running_mean, whole.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.running_var, whole.running_var, rtol=1e-4, atol=1e-5)
    torch.distributed.destroy_process_group()


def in_process(function: Callable[..., None], *arguments: Any) -> None:
    """Ends the forked process without the cleaning up that is its parent's business."""
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def begin_two(function: Callable[..., None], *arguments: Any) -> list[Any]:
    """Two processes that call the function with their rank, a free port and the arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("fork")
    processes = [context.Process(target=in_process, args=(function, rank, port, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    return processes


def assert_both_end_well(processes: list[Any]) -> None:
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


def test_batch_norm_in_bfloat16_is_that_of_the_clips_of_both_processes() -> None:
    assert_both_end_well(begin_two(normalise_together))


def test_two_processes_skip_bad_clips_stop_together_and_resume(clips: Path, tmp_path: Path) -> None:
    data, out = tiny.spoil(clips, tmp_path / "data", "walk/bob_walk.mp4"), tmp_path / "out"
    processes = begin_two(train_together, data, tmp_path / "two", out)
    alone = tiny.settings(**SETTINGS | ALONE)
    model, result = tiny.fit_tiny(data, tmp_path / "one", alone)
    assert_both_end_well(processes)
    weights = [load_file(f"{out}-{rank}.safetensors") for rank in (0, 1)]
    tiny.assert_same(*weights)
    assert_same_course(tiny.weights(model), weights[0])
    assert_same_answers(model, weights[0], data)
    record = json.loads(Path(f"{out}-0.json").read_text())
    assert record["bad"] == sorted(result.bad_clips) == [str(data / "walk" / "bob_walk.mp4")]
    for one, two in zip(map(vars, result.history), record["history"], strict=True):
        for name in one.keys() - {"seconds"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name


def assert_same_answers(model: ActionRecognizer, weights: dict[str, torch.Tensor], data: Path) -> None:
    """The logits of all clips that can be read."""
    members = [clip for clip in tiny.divide(data)[0] if clip.path.name != "bob_walk.mp4"]
    dataset = ClipDataset(members, tiny.ACTIONS, tiny.settings().preprocessing(model.preprocessing_defaults))
    frames = torch.stack([dataset[index].inputs for index in range(len(dataset))])
    with torch.no_grad():
        one = model.eval()(frames)
        model.load_state_dict(weights)
        torch.testing.assert_close(model(frames), one, rtol=1e-4, atol=1e-4)
