"""Two processes give the model that one gives with the same global batch, to float tolerance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fit_together
import pytest
import tiny
from safetensors.torch import load_file

from kinegru.__main__ import main


def launch(*command: object) -> str:
    """Run a command to its end; gives stdout."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.usefixtures("no_reports")
def test_accelerate_launch_with_two_processes_gives_the_model_of_one(clips: Path, tmp_path: Path) -> None:
    """The whole verb, from the cache, which the two fill together; a bad clip leaves seven to train on, an odd number.

    `--multi_gpu` is accelerate's word for more than one process here, also where there is no GPU: with `--cpu` it
    starts one process only, whatever `--num_processes` says.
    """
    data = tiny.spoil(clips, tmp_path / "data", "run/ann_run.mp4")
    options = fit_together.SETTINGS | {"split": "leave-one-group-out:fay"}
    one = tiny.command(data, tmp_path / "one", cache=tmp_path / "cache-1", **options | fit_together.ALONE)
    two = tiny.command(data, tmp_path / "two", cache=tmp_path / "cache-2", **options | fit_together.TOGETHER)
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
    assert any("classifier.fusion" in name and name.endswith("running_var") for name in weights[0])  # MCAM's batch norms
    tiny.assert_close(*weights)


def test_two_processes_skip_bad_clips_stop_together_and_resume(clips: Path, tmp_path: Path) -> None:
    data = tiny.spoil(clips, tmp_path / "data", "walk/bob_walk.mp4")
    script, out = fit_together.__file__, tmp_path / "out"
    launch("torch.distributed.run", "--nproc-per-node", 2, script, data, tmp_path / "two", out)
    model, result = tiny.fit_tiny(data, tmp_path / "one", tiny.settings(**fit_together.SETTINGS | fit_together.ALONE))
    tiny.assert_same(load_file(f"{out}-0.safetensors"), load_file(f"{out}-1.safetensors"))
    tiny.assert_close(tiny.weights(model), load_file(f"{out}-0.safetensors"))
    record = json.loads(Path(f"{out}-0.json").read_text())
    assert record["bad"] == sorted(result.bad_clips) == [str(data / "walk" / "bob_walk.mp4")]
    for one, two in zip(map(vars, result.history), record["history"], strict=True):
        for name in one.keys() - {"seconds"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
