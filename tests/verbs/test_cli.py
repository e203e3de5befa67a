"""The command line seen from outside: help, wrong use, recipes, `--json`, exit statuses."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_set import ACTIONS, PATTERN

from kinegru.__main__ import VERBS, main
from kinegru.training.settings import TrainSettings


def in_a_process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kinegru", *arguments], capture_output=True, text=True, **options)


# -- help ---------------------------------------------------------------------------------------------------------


def test_help_lists_the_verbs_and_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from kinegru.__main__ import main; status = main(['--help']); "
        "heavy = {'torch', 'timm', 'av', 'numpy', 'matplotlib', 'sklearn', 'jsonargparse'} & set(sys.modules); "
        "print(status, sorted(heavy), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stderr.strip() == "0 []"
    assert all(f"  {verb} " in ran.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_every_parameter_once_and_with_dashes(kinegru, verb):
    ran = kinegru(verb, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: kinegru {verb} ")
    listed = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  --")]
    assert len(listed) == len(set(listed)) and not any("_" in name for name in listed)
    assert {"--json", "--debug", "--config"} <= set(listed)
    assert "Args:" not in ran.out


def test_help_of_train_explains_every_setting(kinegru):
    out = kinegru("train", "--help").out
    listed = re.split(r"\n  --", out.partition("\noptions:")[2])[1:]
    explained = {re.sub(r"^\[no-\]", "", part).split()[0].split(".")[0]: " ".join(part.split()[1:]) for part in listed}
    for setting in dataclasses.fields(TrainSettings):
        assert len(explained[setting.name.replace("_", "-")].split()) > 3, setting.name
    for name in (
        "--profile head|tail|full",
        "--epochs N",
        "--learning-rate X",
        "--[no-]augment",
        "--options.NAME VALUE",
    ):
        assert name in out
    assert "[50]" in out and "[0.0001]" in out  # defaults


def test_version(kinegru):
    import kinegru as package

    assert kinegru("--version").out == f"kinegru {package.__version__}\n"


# -- wrong use ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chekc"], "no verb 'chekc'; the verbs are demo, check, shrink, train, evaluate, predict"),
        (["--json"], "no option '--json' without a verb"),
        (["check"], "required: data"),
        (["check", "DATA", "--nope"], "unrecognized arguments: --nope"),
        (["check", "DATA", "--min-frame", "3"], "did you mean --min-frames?"),
        (["check", "DATA", "--min-frames"], "--min-frames: expected one argument"),
        (["check", "DATA", "--min-frames", "few"], "--min-frames is 'few'; it must be a whole number"),
        (["check", "DATA", "--group-pattern", "("], "group pattern '(' is no regular expression"),
        (["check", "DATA", "--group-pattern", "a"], "needs parentheses"),
        (["train", "DATA", "--profile", "tale"], "--profile is 'tale'; it must be head, tail or full"),
        (["train", "DATA", "--learning-rate", "fast"], "--learning-rate is 'fast'; it must be a number"),
        (["train", "DATA", "--epochs", "0"], "--epochs must be above 0"),
        (["train", "DATA", "--resume=perhaps"], "--resume is 'perhaps'; it must be true or false"),
        (["train", "DATA", "--config", "nowhere.yaml"], "no such file"),
        (["train", "DATA", "--split", "halves"], "unknown split 'halves'"),
        (["train", "DATA", "--model", "sc_xception"], "model 'sc_xception' is unknown: did you mean"),
        (["train", "DATA", "--options.hiden_channels", "3"], "did you mean hidden_channels?"),
        (["predict", "model.safetensors"], "required: videos"),
        (["predict", "model.safetensors", "a.mp4", "--top", "0"], "must be at least 1"),
        (["predict", "model.safetensors", "a.mp4", "--device", "tpu"], "it must be auto, cpu, cuda or mps"),
        (["evaluate", "model.safetensors"], "required: data"),
        (["demo", "one", "two"], "unrecognized arguments: two"),
    ],
)
def test_wrong_use_gives_one_line_and_status_2(kinegru, clips, arguments, words):
    ran = kinegru(*(str(clips) if argument == "DATA" else argument for argument in arguments))
    assert (ran.status, ran.out) == (2, "")
    lines = [line for line in ran.err.splitlines() if line.startswith("kinegru")]
    assert len(lines) == 1 and words in lines[0], ran.err


def test_a_mistake_in_a_recipe_names_the_recipe(kinegru, clips, tmp_path):
    for text, words in (
        ("epoch: 3\n", "no such setting 'epoch'; did you mean --epochs?"),
        (": : :\n", "is no YAML"),
        ("epochs: many\n", "--epochs is 'many'; it must be a whole number"),
    ):
        Path("mine.yaml").write_text(text)
        ran = kinegru("train", clips, "--config", "mine.yaml")
        assert ran.status == 2 and words in ran.err and len(ran.err.splitlines()) == 1, ran.err
        assert "mine.yaml" in ran.err or "--epochs" in ran.err


def test_a_failed_start_does_not_block_the_next(kinegru, clips, tiny):
    assert kinegru("train", clips, "--out", "run", "--config", tiny, "--model", "sc_xception").status == 2
    assert kinegru("train", clips, "--out", "run", "--config", tiny, "--split", "halves").status == 2
    assert "holds a run already" not in kinegru("train", clips, "--out", "run", "--split", "quarters").err


def test_a_run_is_not_overwritten_unasked(kinegru, clips, tiny, trained):
    before = (trained / "model.safetensors").read_bytes()
    ran = kinegru("train", clips, "--out", trained, "--config", tiny)
    assert ran.status == 2 and "--resume continues it, --overwrite starts anew" in ran.err
    assert (trained / "model.safetensors").read_bytes() == before


# -- exit statuses in a real process ------------------------------------------------------------------------------


def test_exit_statuses_and_streams_of_a_real_process(clips, tmp_path):
    wrong = in_a_process("check", "--nope", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "") and len(wrong.stderr.splitlines()) == 1
    failed = in_a_process("check", "nowhere", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "kinegru check: nowhere: no such folder or CSV file\n"
    done = in_a_process("check", str(clips), "--json", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"] is True


def test_a_reader_that_goes_away_gets_no_traceback(tmp_path):
    for arguments in (["--help"], ["check", "--help"]):
        command = [sys.executable, "-m", "kinegru", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
            process.stdout.close()
            assert process.stderr.read() == b""


# -- recipes and JSON ---------------------------------------------------------------------------------------------


def test_options_win_over_the_recipe_and_both_reach_the_run(kinegru, clips, tiny):
    command = ["train", clips, "--out", "run", "--group-pattern", PATTERN, "--config", tiny]
    ran = kinegru(*command, "--batch", "4", "--options.width", "12", "--no-augment", "--json")
    assert ran.status == 0, ran.err
    settings = yaml.safe_load(Path("run/settings.yaml").read_text())
    assert settings["batch"] == 4 and settings["augment"] is False  # from the command line
    assert settings["epochs"] == 1 and settings["frames"] == 3  # from the recipe
    assert settings["options"] == {"backbone": "xception_small", "hidden_channels": 4, "width": 12}  # from both
    result = json.loads(ran.out)
    assert result["run"] == "run" and result["metrics"]["clips"] == 4
    recorded = ["settings.yaml", "history.csv", "predictions.csv", "metrics.json", "model.safetensors", "report.html"]
    assert all(Path("run", name).is_file() for name in recorded) and Path("run/figures").is_dir()
    again = kinegru("train", clips, "--out", "again", "--config", "run/settings.yaml", "--json")  # a run is a recipe
    assert again.status == 0, again.err
    assert json.loads(again.out)["metrics"] == result["metrics"]


def test_the_command_in_the_report_repeats_the_run(kinegru, clips, tiny):
    data = Path("a $b 'c'/clips")
    shutil.copytree(clips, data)
    ran = kinegru("train", data, "--group-pattern", PATTERN, "--config", tiny, "--json")
    assert ran.status == 0, ran.err
    run = json.loads(ran.out)["run"]
    name, *words = shlex.split(json.loads(Path(run, "metrics.json").read_text())["context"]["command"])
    again = kinegru(*words, "--json")
    assert name == "kinegru" and again.status == 0, again.err
    assert Path(run).exists() and Path(f"{run}-again/report.html").exists()
    assert json.loads(again.out)["metrics"] == json.loads(ran.out)["metrics"]


def test_printed_settings_are_a_recipe(kinegru, clips, tiny):
    printed = kinegru("train", clips, "--config", tiny, "--options.readout", "mean", "--print-config")
    assert printed.status == 0
    Path("printed.yaml").write_text(printed.out)
    again = kinegru("train", clips, "--config", "printed.yaml", "--print-config")
    assert yaml.safe_load(again.out) == yaml.safe_load(printed.out)
    assert yaml.safe_load(printed.out)["options"]["readout"] == "mean"


def test_json_is_all_there_is_on_stdout(kinegru, clips, trained):
    for arguments in (["check", clips, "--workers", "0"], ["predict", trained, clips]):
        ran = kinegru(*arguments, "--json")
        assert ran.status == 0, ran.err
        assert isinstance(json.loads(ran.out), dict)
        assert ran.err  # progress and messages go there


def test_a_failure_with_json_leaves_stdout_empty(kinegru):
    ran = kinegru("predict", "nowhere.safetensors", "a.mp4", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "kinegru predict: nowhere.safetensors: no such model file, folder or hub id\n"


# -- predict and evaluate -----------------------------------------------------------------------------------------


def test_predict_prints_a_table_with_a_row_a_file(kinegru, clips, trained):
    files = sorted(clips.glob("*/*.mp4"))[:2]
    ran = kinegru("predict", trained, *files)
    header, *rows = ran.out.splitlines()
    assert header.split() == ["video", "label", "score", "next"]
    assert [row.split()[0] for row in rows] == [str(file) for file in files]
    assert all(row.split()[1] in ACTIONS for row in rows)


def test_predict_csv_holds_every_score_of_every_file_in_a_folder(kinegru, clips, trained):
    ran = kinegru("predict", trained / "model.safetensors", clips, "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["clip"] for row in rows] == sorted(str(path) for path in clips.glob("*/*.mp4"))
    for row in rows:
        scores = {label: float(row[f"score:{label}"]) for label in ACTIONS}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(scores, key=scores.__getitem__)
        assert float(row["score"]) == max(scores.values())


def test_predict_refuses_a_folder_without_videos(kinegru, trained):
    Path("empty").mkdir()
    ran = kinegru("predict", trained, "empty")
    assert ran.status == 2 and "empty: no video files in this folder" in ran.err


def test_evaluate_counts_clips_seen_in_training_and_warns(kinegru, clips, trained):
    ran = kinegru("evaluate", trained, clips, "--out", "all", "--group-pattern", PATTERN, "--json")
    result = json.loads(ran.out)
    assert (result["trained_on"], result["siblings"], result["metrics"]["clips"]) == (12, 12, 16)
    assert "warning: 12 of these 16 clips were in the training set" in ran.err
    assert "12 of 16 evaluated clips were in the training set" in Path("all/report.html").read_text()


def test_evaluate_on_the_models_own_split_repeats_its_test(kinegru, clips, trained):
    arguments = ["--out", "test", "--split", "model", "--group-pattern", PATTERN, "--json"]
    ran = kinegru("evaluate", trained, clips, *arguments)
    result = json.loads(ran.out)
    assert (result["trained_on"], result["siblings"]) == (0, 0) and "warning" not in ran.err
    stored = json.loads((trained / "metrics.json").read_text())["metrics"]
    assert result["metrics"]["confusion_matrix"] == stored["confusion_matrix"]
    assert result["metrics"]["log_loss"] == pytest.approx(stored["log_loss"], rel=1e-5)


def test_clips_seen_in_training_are_known_by_content_under_any_name(kinegru, clips, trained, tmp_path):
    lines = ["path,label", *(f"{path},{path.parent.name}" for path in sorted(clips.glob("*/*.mp4")))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    ran = kinegru("evaluate", trained, tmp_path / "list.csv", "--out", "all", "--json")
    assert json.loads(ran.out)["trained_on"] == 12
    refused = kinegru("evaluate", trained, tmp_path / "list.csv", "--out", "split", "--split", "random")
    assert refused.status == 1 and "were trained on, by name or content" in refused.err


def test_an_evaluation_never_takes_the_place_of_a_run(kinegru, clips, trained):
    before = (trained / "predictions.csv").read_bytes()
    ran = kinegru("evaluate", trained, clips, "--out", trained)
    assert ran.status == 2 and "holds a run" in ran.err and (trained / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 1 bytes."),
    ],
)
def test_memory_that_ran_out_is_no_bug_but_says_what_takes_less(error, kinegru, clips, tiny, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("kinegru.runs.fold.fit", fail)
    ran = kinegru("train", clips, "--config", tiny, "--group-pattern", PATTERN)
    assert ran.status == 1 and "a smaller --micro-batch, --size or --frames takes less" in ran.err.splitlines()[-1]


def test_evaluate_does_not_claim_to_know_siblings_without_groups(kinegru, clips, trained):
    ran = kinegru("evaluate", trained, clips, "--out", "all")
    assert "not every clip's group is given" in ran.out and "0 test clips have a sibling" not in ran.out


def test_evaluate_refuses_classes_the_model_does_not_know(kinegru, clips, trained, tmp_path):
    (tmp_path / "other" / "jump").mkdir(parents=True)
    (tmp_path / "other" / "jump" / "a.mp4").write_bytes(next(clips.glob("*/*.mp4")).read_bytes())
    ran = kinegru("evaluate", trained, tmp_path / "other")
    assert ran.status == 1 and "classes the model does not know: jump" in ran.err


def test_main_gives_wrong_use_back_instead_of_leaving_python():
    assert main(["check", "--nope"]) == 2
    assert main(["check", "--help"]) == 0
