"""`kinegru benchmark`, and what all measurements stand on: sides in turn, fresh processes."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from kinegru.__main__ import main
from kinegru.errors import KineGRUError
from kinegru.measuring import interleave, ratio, run_process
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.video.transforms import Preprocessing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    built = create_model("sc_xception_convgru_mcam_aff", 2, backbone="xception_small", hidden_channels=4, width=8)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return str(save_model(path, built, ["run", "walk"], Preprocessing(frames=4, size=64).to_dict()))


def test_a_model_is_measured_live_and_on_whole_windows_which_agree(model, capsys):
    threads = torch.get_num_threads()
    assert main(["benchmark", model, "--window", "6", "--rounds", "3", "--threads", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["window"], result["size"], result["threads"]) == (6, 64, 2)
    measured = result["engines"]["torch"]
    assert measured["exact"] and measured["difference"] < 1e-5
    low, high = measured["ratio quartiles"]
    assert 0 < low <= measured["ratio"] <= high
    assert measured["stream"]["laps"] == measured["re-run"]["laps"] == 3
    assert result["kinegru predict"]["peak, MB"] > 50 and result["machine"]["cores"] >= 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("built", "preprocessing"),
    [
        (lambda: create_model("stc_resnet18", 2), Preprocessing(frames=4, size=32)),
        (
            lambda: create_model(
                "mobilenet_convgru_mcam_aff", 2, backbone="xception_small", hidden_channels=4, width=8
            ),
            Preprocessing(frames=4, size=32, background="remove"),
        ),
    ],
    ids=["3-D network", "background taken away"],
)
def test_a_model_that_can_only_be_rerun_has_no_ratio(built, preprocessing, capsys, tmp_path):
    path = save_model(tmp_path / "model.safetensors", built(), ["run", "walk"], preprocessing.to_dict())
    assert main(["benchmark", str(path), "--rounds", "1", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["engines"]["torch"]
    assert not measured["exact"] and measured["ratio"] is None and measured["re-run"]["seconds"] > 0


@pytest.mark.parametrize("words", [["no-such.safetensors"], ["MODEL", "no-such.mp4"], ["MODEL", "--rounds", "0"]])
def test_what_cannot_be_measured_is_one_line(model, words, capsys):
    assert main(["benchmark", *(model if word == "MODEL" else word for word in words)]) in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1 and errors[0].startswith("kinegru benchmark: ")


def test_a_fresh_process_has_its_own_peak_of_memory_not_ours():
    assert run_process([sys.executable, "-c", "pass"]).peak < 50e6  # this process holds torch
    assert run_process([sys.executable, "-c", "x = bytearray(90_000_000)"]).peak > 90e6


def test_a_process_that_fails_is_an_error_with_its_last_line():
    with pytest.raises(KineGRUError, match=r"status 1 \(ZeroDivisionError: division by zero\)"):
        run_process([sys.executable, "-c", "1 / 0"])


def test_sides_take_turns_and_one_that_fails_does_not_stop_the_others():
    order: list[str] = []
    calls = 0

    def fails_later() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError("gone")

    sides = {"a": lambda: order.append("a"), "b": lambda: order.append("b"), "bad": fails_later}
    found = interleave(sides, rounds=4)
    assert sorted(order) == ["a"] * 5 + ["b"] * 5 and order[2:] != sorted(order[2:])  # one warms up
    assert found["bad"].error == "MemoryError: gone" and len(found["a"].seconds) == len(found["b"].seconds) == 4


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    assert ratio([10.0, 30.0, 8.0], [1.0, 10.0, 2.0]).median == 4.0
