"""A finished run stays finished as long as nothing that decides its result has changed, and not a moment longer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from fake_runs import PATTERN, write_empty_clips, write_job

from kinegru.data.catalog import load_catalog
from kinegru.reproduction.job import IDENTITY, Job, data_digest
from kinegru.reproduction.plan import plan_jobs, plan_row
from kinegru.reproduction.protocol import Protocol
from kinegru.reproduction.rows import TABLES
from kinegru.reproduction.runner import read_predictions
from kinegru.training.settings import TrainSettings

ROW = TABLES["table4"].rows[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_empty_clips(tmp_path / "data", ("run", "walk"), ("ann", "bob", "cyd"))
    return tmp_path / "data"


def job_of(data: Path, split: str = "leave-one-group-out", weights: Path | None = None, **settings) -> Job:
    catalog = load_catalog(data, PATTERN)
    given = {"backbone_weights": str(weights)} if weights else {}
    protocol = Protocol(str(data), split, data.parent / "out", TrainSettings(**given, **settings), PATTERN)
    return plan_jobs([plan_row(ROW, protocol)], [0], protocol, catalog)[0]


def finish(data: Path, **settings) -> Job:
    job = job_of(data, **settings)
    write_job(job, load_catalog(data, PATTERN), lambda job, name: True)
    return job


def test_a_job_is_new_begun_finished(data):
    job = job_of(data)
    assert job.state() == "new"
    job.open()
    assert job.state() == "begun" and not job.finished_folds()
    finish(data)
    assert job.state() == "finished" and len(job.finished_folds()) == 3


def test_the_pooled_result_alone_keeps_a_job_finished(data):
    job = finish(data)
    for fold in job.folds:
        shutil.rmtree(job.fold_folder(fold))
    again = job_of(data)
    assert again.state() == "finished" and len(again.finished_folds()) == 3
    assert read_predictions(again) is not None


@pytest.mark.parametrize(
    "change",
    [{"epochs": 3}, {"learning_rate": 1e-3}, {"options": {"readout": "max"}}, {"split": "group"}, {"cache": "off"}],
    ids=str,
)
def test_what_decides_the_result_makes_it_run_again(data, change):
    finish(data)
    changed = job_of(data, **change)
    assert changed.state() == "changed"
    name = next(iter(change))
    assert any(name in word and "was" in word for word in changed.changes())
    changed.open()
    assert changed.state() == "begun"
    assert [path.name for path in changed.folder.iterdir()] == [IDENTITY]


@pytest.mark.parametrize(
    "change", [{"workers": 3}, {"cache": "elsewhere"}, {"device": "cpu"}, {"checkpoint_minutes": 9.0}], ids=str
)
def test_what_only_concerns_the_machine_does_not(data, change):
    finish(data)
    assert job_of(data, **change).state() == "finished"


def test_a_clip_of_other_content_name_or_group_makes_it_run_again(data):
    before = data_digest(load_catalog(data, PATTERN))
    finish(data)
    (data / "run" / "ann_run.mp4").write_bytes(b"another video")
    assert job_of(data).state() == "changed"
    content = data_digest(load_catalog(data, PATTERN))
    (data / "run" / "ann_run.mp4").rename(data / "run" / "bob_run2.mp4")
    name = data_digest(load_catalog(data, PATTERN))
    group = data_digest(load_catalog(data, r"_([a-z]+)"))
    assert len({before, content, name, group}) == 4


def test_official_lists_that_deal_otherwise_make_it_run_again(tmp_path):
    names = [f"v_{action}_g{group:02d}_c01.avi" for action in ("Run", "Walk") for group in (1, 2, 3)]
    for name in names:
        folder = tmp_path / "UCF-101" / name.split("_")[1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()

    def job(tested: str) -> Job:
        lists = tmp_path / f"tested-{tested}" / "ucfTrainTestlist"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "classInd.txt").write_text("1 Run\n2 Walk\n")
        for side in ("train", "test"):
            lines = [f"{n.split('_')[1]}/{n}" for n in names if (f"_{tested}_" in n) == (side == "test")]
            label = [f" {1 + line.startswith('Walk')}" if side == "train" else "" for line in lines]
            text = "".join(f"{line}{number}\n" for line, number in zip(lines, label, strict=True))
            (lists / f"{side}list01.txt").write_text(text)
        catalog = load_catalog(tmp_path / "UCF-101", lists=lists)
        protocol = Protocol("UCF-101", "official:1", tmp_path / "out", TrainSettings(), lists=str(lists))
        return plan_jobs([plan_row(ROW, protocol)], [0], protocol, catalog)[0]

    first = job("g01")
    write_job(first, load_catalog(tmp_path / "UCF-101", lists=tmp_path / "tested-g01"), lambda job, name: True)
    assert job("g01").state() == "finished"
    assert job("g02").state() == "changed" and any("dealt" in word for word in job("g02").changes())


def test_weights_count_by_content_not_by_place(data, tmp_path):
    files = [tmp_path / name for name in ("a/w.pth", "b/w.pth", "c/w.pth")]
    for file, content in zip(files, (b"1", b"1", b"2"), strict=True):
        file.parent.mkdir()
        file.write_bytes(content)
    finish(data, weights=files[0])
    assert job_of(data, weights=files[1]).state() == "finished"
    assert job_of(data, weights=files[2]).state() == "changed"


def test_a_setting_that_came_later_counts_as_its_default(data):
    job = finish(data)
    file = job.folder / IDENTITY
    kept = json.loads(file.read_text())
    del kept["settings.label_smoothing"]  # as an earlier version wrote it
    file.write_text(json.dumps(kept))
    assert job_of(data).state() == "finished"
    assert job_of(data, label_smoothing=0.1).state() == "changed"


def test_a_folder_that_does_not_say_what_it_is_counts_for_nothing(data):
    job = finish(data)
    (job.folder / IDENTITY).unlink()
    assert job.state() == "changed" and "nothing says" in job.changes()[0]


def test_seeds_share_nothing_but_the_row(data):
    catalog = load_catalog(data, PATTERN)
    protocol = Protocol(str(data), "group", data.parent / "out", TrainSettings(), PATTERN)
    one, two = plan_jobs([plan_row(ROW, protocol)], [0, 1], protocol, catalog)
    assert one.folder.parent == two.folder.parent and one.folder != two.folder
    assert one.settings == dataclasses.replace(two.settings, seed=0)
