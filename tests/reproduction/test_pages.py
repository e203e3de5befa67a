"""CSV, Markdown and page say the same, and what they say can be recounted from the runs' predictions.csv."""

from __future__ import annotations

import csv
import html
import io
import re
from pathlib import Path

import pytest
from fake_runs import PATTERN, write_empty_clips, write_job
from scipy.stats import binomtest

from kinegru.data.catalog import load_catalog
from kinegru.reproduction.cost import CostBook, ModelCost
from kinegru.reproduction.files import write_table
from kinegru.reproduction.job import Job
from kinegru.reproduction.plan import plan_jobs, plan_row
from kinegru.reproduction.protocol import Protocol
from kinegru.reproduction.results import TableResult, gather
from kinegru.reproduction.rows import FULL, TABLES, Table, chosen_rows, figures_table, leak_table
from kinegru.training.settings import TrainSettings

SEEDS = (0, 1)
REASON = "no module named cv2: pip install 'kinegru[flow]'"


class Book(CostBook):
    """Costs that nobody counted."""

    def of(self, planned):
        return ModelCost(70_600_000_000, 70_000_000_000, 16_510_000, 450_000, 1)


def right(job: Job, name: str) -> bool:
    """LRCN misses run and walk, and with seed 1 also ann; the paper's model misses one clip."""
    if job.planned.row.key == "lrcn":
        return not name.startswith(("run", "walk")) and not (job.seed == 1 and "/ann_" in name)
    return name != "bend/bob_bend.mp4"


def write(tmp_path: Path, table: Table, keys: list[str] | None, failing: str = "") -> tuple[TableResult, list[Job]]:
    catalog = write_empty_clips(tmp_path / "set")
    protocol = Protocol("set", "leave-one-group-out", tmp_path / "out", TrainSettings(frames=8, size=64), PATTERN)
    planned = [plan_row(row, protocol) for row in chosen_rows(table, keys)]
    jobs = plan_jobs(planned, SEEDS, protocol, catalog)
    failed = {job.folder: REASON for job in jobs if job.planned.row.key == failing}
    for job in jobs:
        if job.folder not in failed:
            write_job(job, catalog, right)
    rows, pairs = gather(table, planned, jobs, protocol, failed, Book(tmp_path / "none", 7), SEEDS)
    result = TableResult(table, protocol, SEEDS, rows, pairs, (), "set", "folder", len(catalog.clips), "2026-01-01")
    write_table(result, jobs, tmp_path / table.key)
    return result, jobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pages")
    write(path, TABLES["table3"], ["lrcn", "two_stream_temporal", "ours"], failing="two_stream_temporal")
    return path


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    text = (folder / "table3" / "table3.csv").read_text()
    return {row["row"]: row for row in csv.DictReader(io.StringIO(text))}


def recount(folder: Path, slug: str, seed: int) -> dict[tuple[str, str], bool]:
    """(clip, fold) -> right, with nothing of kinegru."""
    found = {}
    file = folder / "out" / "runs" / slug / f"seed-{seed}" / "predictions.csv"
    for row in csv.DictReader(file.open()):
        scores = {name[6:]: float(value) for name, value in row.items() if name.startswith("score:")}
        found[row["clip"], row["fold"]] = max(scores, key=scores.__getitem__) == row["label"]
    return found


def test_the_csv_counts_what_the_predictions_say(folder):
    slugs = {"lrcn": "lrcn-differences-False-readout-mean", "ours": FULL}
    slugs["lrcn"] = next(path.name for path in (folder / "out" / "runs").glob("lrcn*"))
    for key, slug in slugs.items():
        rights = [sum(recount(folder, slug, seed).values()) for seed in SEEDS]
        row = rows_of(folder)[key]
        assert row["right"] == " ".join(map(str, rights)) and row["clips"] == "63 63"
        assert float(row["top1"]) == pytest.approx(sum(rights) / 126)
        low, high = float(row["wilson_low"]), float(row["wilson_high"])
        assert low < float(row["top1"]) < high
    assert rows_of(folder)["lrcn"]["right"] == "45 40"
    assert rows_of(folder)["ours"]["right"] == "62 62"


def test_the_comparisons_are_mcnemars_of_the_same_clips(folder):
    lines = list(csv.DictReader((folder / "table3" / "table3_comparisons.csv").open()))
    lrcn = next(path.name for path in (folder / "out" / "runs").glob("lrcn*"))
    assert {(line["first"], line["second"]) for line in lines} == {("ours", "lrcn")}
    for seed in SEEDS:
        a, b = recount(folder, FULL, seed), recount(folder, lrcn, seed)
        one, other = sum(a[k] and not b[k] for k in a), sum(b[k] and not a[k] for k in a)
        line = next(line for line in lines if line["seed"] == str(seed))
        assert (line["first_only"], line["second_only"]) == (str(one), str(other))
        assert float(line["p"]) == pytest.approx(binomtest(one, one + other).pvalue)
    joined = next(line for line in lines if line["seed"] == "all")
    assert float(joined["difference"]) == pytest.approx((124 - 85) / 126)
    assert float(joined["p_groups"]) >= 2 / 2**9 and joined["groups"] == "9"
    assert float(joined["p_corrected"]) == max(float(joined["p"]), float(joined["p_groups"]))  # of one comparison


def test_verdicts_count_how_many_comparisons_there_are(tmp_path):
    catalog = write_empty_clips(tmp_path / "set")
    protocol = Protocol("set", "leave-one-group-out", tmp_path / "out", TrainSettings(frames=8, size=64), PATTERN)

    def verdict_on_lrcn(keys: list[str]) -> tuple[str, float]:
        table = TABLES["table3"]
        planned = [plan_row(row, protocol) for row in chosen_rows(table, keys)]
        jobs = plan_jobs(planned, (0,), protocol, catalog)
        for job in jobs:
            write_job(job, catalog, right)
        _, pairs = gather(table, planned, jobs, protocol, {}, Book(tmp_path / "none", 7), (0,))
        pair = next(pair for pair in pairs if (pair.first.key, pair.second.key) == ("ours", "lrcn"))
        assert pair.corrected == pytest.approx(min(1.0, pair.test.honest_p * len(pairs)))  # the others say nothing
        return pair.verdict(), pair.test.honest_p

    verdict, p = verdict_on_lrcn(["lrcn", "ours"])
    assert p == pytest.approx(2 / 2**9) and verdict == "more than chance"
    verdict, p = verdict_on_lrcn([row.key for row in TABLES["table3"].rows if not row.key.startswith("stc")])
    assert p == pytest.approx(2 / 2**9) and verdict == "more than chance by itself, not among so many"


def test_markdown_and_page_say_the_same_as_the_csv(folder):
    markdown = (folder / "table3" / "table3.md").read_text()
    page = (folder / "table3" / "table3.html").read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"</?span[^>]*>", "", page)))
    for row in rows_of(folder).values():
        assert row["command"] in markdown and row["command"] in text
        if row["right"]:
            shown = " and ".join(row["right"].split()) + " of 63"
            top1 = f"{100 * float(row['top1']):.1f}"
            interval = f"{100 * float(row['wilson_low']):.1f}–{100 * float(row['wilson_high']):.1f}"
            for place in (markdown, text):
                assert shown in place and top1 in place and interval in place
    for place in (markdown, text):
        assert "95.66" in place and "69.82" in place and "87.9" in place and "not quoted here" in place
        assert "cannot be subtracted" in place  # the paper's figures are of other data
        assert "No test clip has a sibling" in place
        assert "16.51" in place and "70.6" in place


def test_every_seed_can_be_repeated(folder):
    for name in ("table3.md", "table3.html"):
        assert "The other seeds: the same with --seed 1." in (folder / "table3" / name).read_text(encoding="utf-8")


def test_the_command_with_imagenet_weights_keeps_the_rows_own_split(tmp_path):
    catalog = write_empty_clips(tmp_path / "set")
    protocol = Protocol("set", "folds:3", tmp_path / "out", TrainSettings(backbone_weights="none"), PATTERN)
    table = leak_table(FULL)
    planned = [plan_row(row, protocol) for row in table.rows]
    rows, _ = gather(table, planned, [], protocol, {}, Book(tmp_path / "none", len(catalog.labels)), SEEDS)
    assert [re.search(r"--split (\S+)", row.imagenet_command)[1] for row in rows] == ["group", "random"]


def test_a_failed_row_is_named_with_its_reason(folder):
    row = rows_of(folder)["two_stream_temporal"]
    assert row["failure"] == REASON and row["top1"] == ""
    assert f"Failed: seed 0, 1: {REASON}" in (folder / "table3" / "table3.md").read_text()
    assert html.escape(REASON, quote=False).replace("'", "&#39;") in (folder / "table3" / "table3.html").read_text()


def test_the_page_stands_alone(folder):
    page = (folder / "table3" / "table3.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 1 and (folder / "table3" / "table3.png").stat().st_size > 5000


def test_names_cannot_break_the_page(tmp_path):
    catalog = write_empty_clips(tmp_path / "<b>set|&", ("run", "walk"), ("ann", "bob"))
    protocol = Protocol("<b>set|&", "group", tmp_path / "out", TrainSettings(), PATTERN)
    planned = [plan_row(row, protocol) for row in chosen_rows(TABLES["table2"], ["filters_20"])]
    jobs = plan_jobs(planned, (0,), protocol, catalog)
    write_job(jobs[0], catalog, right)
    rows, pairs = gather(TABLES["table2"], planned, jobs, protocol, {}, Book(tmp_path / "none", 2), (0,))
    result = TableResult(TABLES["table2"], protocol, (0,), rows, pairs, (), "<b>set|&", "folder", 4, "")
    write_table(result, jobs, tmp_path / "table2")
    assert "<b>" not in (tmp_path / "table2" / "table2.html").read_text()
    assert "'<b>set|&'" in (tmp_path / "table2" / "table2.csv").read_text()  # quoted for the shell


def test_figures_9_to_11_are_drawn_from_the_runs(tmp_path):
    write(tmp_path, figures_table(FULL), None)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    drawn = {
        f"{name}.{kind}"
        for name in ("fig9_loss", "fig10_accuracy", "fig11_confusion_matrix")
        for kind in ("png", "svg")
    }
    assert drawn | {"figures.html", "figures.md", "figures.csv"} == names
    text = (tmp_path / "figures" / "figures.md").read_text()
    assert "Fig. 9 of the paper" in text and "the mean of 18 runs (9 folds × 2 seeds)" in text
    assert "63 clips, each with 2 seeds, 124 of 126 tests right" in text


def test_a_table_over_the_official_splits_gives_their_mean(tmp_path):
    names = [f"v_{action}_g{group:02d}_c01.avi" for action in ("Run", "Walk") for group in range(1, 7)]
    tested = {1: ("g01",), 2: ("g02",), 3: ("g03", "g04", "g05")}  # splits of two, two and six clips
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Run\n2 Walk\n")
    for name in names:
        clip = tmp_path / "UCF-101" / name.split("_")[1] / name
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.touch()
    for number, groups in tested.items():
        for side in ("train", "test"):
            chosen = [n for n in names if (n.split("_")[2] in groups) == (side == "test")]
            lines = [f"{n.split('_')[1]}/{n}" + f" {1 + ('Walk' in n)}" * (side == "train") for n in chosen]
            (lists / f"{side}list{number:02d}.txt").write_text("\n".join(lines))
    catalog = load_catalog(tmp_path / "UCF-101", lists=lists)
    table = TABLES["table4"]
    protocol = Protocol("UCF-101", "official", tmp_path / "out", TrainSettings(frames=8, size=64), lists=str(lists))
    planned = [plan_row(row, protocol) for row in chosen_rows(table, ["xception_lstm"])]
    jobs = plan_jobs(planned, [0], protocol, catalog)
    write_job(jobs[0], catalog, lambda job, name: "_g02_" not in name and name != "Run/v_Run_g05_c01.avi")
    rows, pairs = gather(table, planned, jobs, protocol, {}, Book(tmp_path / "none", 7), [0])
    result = TableResult(table, protocol, (0,), rows, pairs, (), "UCF-101", catalog.kind, 12, "2026-01-01")
    write_table(result, jobs, tmp_path / "table4")
    mean = (1 + 0 + 5 / 6) / 3  # seven of ten clips, but 61.1 % of the splits
    row = next(csv.DictReader((tmp_path / "table4" / "table4.csv").open()))
    assert float(row["fold_mean"]) == pytest.approx(mean) and (row["right"], row["clips"]) == ("7", "10")
    for name in ("table4.md", "table4.html"):
        text = (tmp_path / "table4" / name).read_text()
        assert "61.1" in text and "70.0" in text, name
    assert "mean of splits" in (tmp_path / "table4" / "table4.md").read_text()
