"""The results that are committed: what a page or a table says is what its predictions say."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from kinegru.evaluation.predictions import Predictions

RESULTS = Path(__file__).resolve().parents[1] / "results"
# tables of the runs beside them; the runs of the other tables were not kept
KEPT = (
    "fights/table2",
    "fights/table3",
    "fights/table4",
    "fights/choices",
    "fights/figures",
    "fights-background/table4",
    "fights-best/figures",
    "fights-whole/table1",
    "fights-whole/table3",
    "weizmann/table2",
    "weizmann/table3",
    "weizmann/table4",
    "weizmann/choices",
    "weizmann/figures",
    "weizmann-best/figures",
    "weizmann-whole/table1",
    "weizmann-whole/table3",
)
TESTED = sorted(RESULTS.rglob("predictions.csv"))  # each with the measures beside it


def _name(path: Path) -> str:
    return path.relative_to(RESULTS).as_posix()


@pytest.mark.parametrize("path", TESTED, ids=_name)
def test_measures_are_those_of_the_predictions(path: Path) -> None:
    predictions = Predictions.read(path)
    measures = json.loads(path.with_name("metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert (int(predictions.correct.sum()), len(predictions)) == (measures["right"], measures["clips"])


@pytest.mark.parametrize("data", ["weizmann", "fights"])
def test_pages_give_the_best_models_right_clips(data: str) -> None:
    predictions = Predictions.read(RESULTS / data / "predictions.csv")
    right = f"{int(predictions.correct.sum())} of {len(predictions)}"
    assert f"**{right}**" in (RESULTS / data / "README.md").read_text(encoding="utf-8")
    overview = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| \[\w+\]\({data}/README\.md\) .*\| {right}\b", overview, re.M)


@pytest.mark.parametrize("table", KEPT)
def test_tables_count_what_their_runs_predicted(table: str) -> None:
    sheet = RESULTS / table / f"{Path(table).name}.csv"
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        run = sheet.parents[1] / "runs" / row["command"].rpartition("--out runs/")[2]
        for seed, right in zip(row["seeds"].split(), row["right"].split(), strict=True):
            predictions = Predictions.read(run / f"seed-{seed}" / "predictions.csv")
            assert int(predictions.correct.sum()) == int(right), run


# tables of docs/claims.md: the heading of the first column, and the sheet whose rows stand there in the same order
CLAIMED = {
    "table 1": "InceptionV3",
    "table 4": "LSTM",
    "table 2": "20",
    "table 3": "LRCN",
    "choices": "the model as it is",
}


@pytest.mark.parametrize(("table", "first"), CLAIMED.items())
def test_the_page_of_claims_gives_the_counts_of_the_sheets(table: str, first: str) -> None:
    name = table.replace(" ", "")
    lines = (RESULTS.parent / "docs" / "claims.md").read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"| {first}"))
    end = next(number for number in range(begin, len(lines)) if not lines[number].startswith("|"))
    cells = [line.replace("*", "").split("|")[2:4] for line in lines[begin:end]]
    for column, data in enumerate(("weizmann", "fights")):
        folder = RESULTS / (f"{data}-whole" if name == "table1" else data) / name
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            sheet = [row["right"].split() for row in csv.DictReader(file)]
        printed = [re.findall(r"\d+", row[column].partition("(")[0]) for row in cells]
        assert list(filter(None, printed)) == sheet, f"{table} on {data}"  # a row that was not run has a dash
