"""Scripts of benchmarks/ run, each at its smallest, print ratio, spread and machine, and write their result.

How fast anything is cannot be tested here: times in a test say nothing.
"""

from __future__ import annotations

import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_set import write_small_set

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "startup": "--rounds 1 --models",
    "stream": "--models small-96 --window 3 --steps 1 --rounds 2",
    "engines": "--models small-96 --window 3 --rounds 2",
    "convgru": "--maps small-96 --frames 2 --batch 1 --rounds 2",
    "memory": "--minutes 0.02 0.04 --rounds 1 --fps 5 --size 32 --window 2",
    "peers": "--ours kinegru-small-96 --peers s3d --window 3 --steps 1 --rounds 1",
    "decode": "CLIPS --clips 1 --repeats 1 --frames 2 --size 32 --threads 1",
    "shrink": "CLIPS --clips 1 --rounds 2 --frames 2 --size 16 --short-side 16",
    "gpu": "convgru --device cpu --frames 2 --train-batch 1 --rounds 2 --no-compile",
}
SPREAD = r"\d\S* \([\d.e-]+ to [\d.e-]+\)"
RATIO = r"\d(\.\d+)?x|\*\*\d"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_prints_ratio_spread_and_machine_and_writes_its_result(name, tmp_path):
    if name == "decode":
        pytest.importorskip("cv2", reason="the reader that ours is compared with is not installed")
    if "CLIPS" in SCRIPTS[name]:
        write_small_set(tmp_path / "clips", people=("ann",))
    options = SCRIPTS[name].replace("CLIPS", "clips").split()
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options, "--json", "out/result.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text(encoding="utf-8"))
    assert result["machine"]["cores"] >= 1 and f"benchmarks/{name}.py" in result["command"]
    page = (tmp_path / "out/result.md").read_text(encoding="utf-8")
    assert done.stdout.endswith(page + "\n")
    assert "Machine: processor" in page and re.search(SPREAD, page) and re.search(RATIO, page), page


@pytest.mark.parametrize("name", ["calls", "report"])
def test_the_examples_of_what_benchmarks_share_are_right(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
