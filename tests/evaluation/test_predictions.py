"""The table of predictions comes back as it was written, and nothing else is taken for one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import DataError
from kinegru.evaluation.predictions import Predictions

# What a file name can hold on Linux: anything but NUL and slash, bytes that are no UTF-8 (as lone surrogates) included.
names = st.text(
    st.one_of(st.characters(codec="utf-8", exclude_characters="\0"), st.sampled_from(',"\r\n;\t \udc80走路')),
    min_size=1,
)


@st.composite
def tables(draw: st.DrawFn) -> Predictions:
    classes = draw(st.lists(names, min_size=1, max_size=7, unique=True))
    rows = draw(st.integers(0, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    scores = np.random.default_rng(seed).dirichlet(np.full(len(classes), 0.3), size=rows).astype(np.float32)

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    folds = draw(st.sampled_from([[], column(st.none() | names)]))
    labels, groups = column(st.none() | st.sampled_from(classes)), column(st.none() | names)
    return Predictions(classes, column(names), labels, groups, scores, folds)


def same(one: Predictions, other: Predictions) -> bool:
    fields = ("classes", "clips", "labels", "groups", "folds")
    return all(getattr(one, f) == getattr(other, f) for f in fields) and np.array_equal(one.scores, other.scores)


@settings(max_examples=40, deadline=None)
@given(tables())
def test_round_trip_is_exact_for_any_name_and_score(
    tmp_path_factory: pytest.TempPathFactory, table: Predictions
) -> None:
    path = tmp_path_factory.mktemp("table") / "predictions.csv"
    assert same(Predictions.read(table.write(path)), table)
    assert [file.name for file in path.parent.iterdir()] == ["predictions.csv"]


def small(**changes: object) -> Predictions:
    values: dict = {
        "classes": ["run", "walk"],
        "clips": ["a.mp4", "b.mp4"],
        "labels": ["run", None],
        "groups": ["ann", None],
        "scores": [[0.9, 0.1], [0.2, 0.8]],
    }
    return Predictions(**{**values, **changes})


def test_the_file_is_the_csv_that_is_promised(tmp_path: Path) -> None:
    text = small(folds=["1", "2"]).write(tmp_path / "p.csv").read_text()
    assert text == "clip,label,group,fold,score:run,score:walk\na.mp4,run,ann,1,0.9,0.1\nb.mp4,,,2,0.2,0.8\n"


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b'\xef\xbb\xbfscore:walk,clip,group,score:run,label\r\n0.25,"a, b.mp4",ann,0.75,run\r\n\r\n')
    table = Predictions.read(path)
    assert (table.classes, table.clips, table.labels, table.groups) == (["walk", "run"], ["a, b.mp4"], ["run"], ["ann"])
    assert table.scores.tolist() == [[0.25, 0.75]] and table.correct.tolist() == [True]


HEADER = "clip,label,group,score:run,score:walk\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("path,label\na,run\n", "no column 'clip'"),
        ("\x00\x01\x02RIFF\xff", "is no "),  # "CSV" before Python 3.11, "table of predictions" since
        ("clip;label;group;score:run\n", "no column 'clip'"),
        ("clip,label,group\na,run,\n", "no column starts with 'score:'"),
        ("clip,label,group,score:run,score:run\n", "'score:run' stands twice"),
        ("clip,label,group,note,score:run\n", "unknown column 'note'"),
        (HEADER + "a,run,,0.9,0.1\nb,run,,0.9", "line 3: 4 fields where the header has 5"),
        (HEADER + "a,run,,0.9,0.1,0.3\n", "line 2: 6 fields"),
        (HEADER + "a,run,,0.9,high\n", "line 2: 'score:walk' is 'high', not a number"),
        (HEADER + "a,run,,0.9,\n", "line 2: 'score:walk' is '', not a number"),
        (HEADER + "a,run,,nan,0.1\n", "no probabilities"),
        (HEADER + "a,run,,1.5,-0.5\n", "no probabilities"),
        (HEADER + "a,run,,0.9,0.2\n", "sum to 1.1, not to 1"),
        (HEADER + "a,jump,,0.9,0.1\n", "label 'jump' is none of the 2 classes"),
        (HEADER + ",run,,0.9,0.1\n", "clip 1 of 1 has no name"),
        (HEADER + '"a,run,,0.9,0.1\n', "is no CSV"),
        ("clip,label,group,score:\na,,,1\n", "each class a name"),
    ],
)
def test_a_broken_table_is_refused_in_one_line_that_names_the_file(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(DataError) as refusal:
        Predictions.read(path)
    message = str(refusal.value)
    assert said in message and message.startswith(f"{path}: ") and len(message.splitlines()) == 1


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file of predictions"):
        Predictions.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        Predictions.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["run"]}, "2 clips but 1 labels"),
        ({"folds": ["1"]}, "2 clips but 1 folds"),
        ({"scores": [[1.0], [1.0]]}, "shape"),
        ({"classes": ["run", "run"]}, "twice"),
        ({"classes": [], "scores": [[], []]}, "at least one class"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        small(**changes)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small().write(tmp_path / "p.csv")
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        small(clips=["c", "d"]).write(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_unlabelled_clips_are_never_correct_and_can_be_left_out() -> None:
    table = small()
    assert table.truth().tolist() == [0, -1] and table.correct.tolist() == [True, False]
    known = table.labelled()
    assert (known.clips, known.labels, known.groups) == (["a.mp4"], ["run"], ["ann"])


def test_the_table_does_not_change_under_its_owner() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    table = small(scores=scores)
    scores[:] = 0.5
    assert table.top1().tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        table.scores[0, 0] = 0


def test_pooling_keeps_every_row_and_puts_columns_in_one_order() -> None:
    other = Predictions(["walk", "run"], ["c.mp4"], ["walk"], ["bob"], [[0.75, 0.25]])
    pooled = Predictions.concatenate([small(), other], folds=["one", "two"])
    assert pooled.clips == ["a.mp4", "b.mp4", "c.mp4"] and pooled.folds == ["one", "one", "two"]
    assert pooled.scores[2].tolist() == [0.25, 0.75] and pooled.correct.tolist() == [True, False, True]
    assert Predictions.concatenate([pooled]).folds == pooled.folds


def test_tables_of_other_classes_are_not_pooled() -> None:
    other = Predictions(["run", "jump"], ["c"], [None], [None], [[0.5, 0.5]])
    with pytest.raises(DataError, match="'jump' is not in both table 1 and table 2"):
        Predictions.concatenate([small(), other])
    with pytest.raises(DataError, match="no predictions to pool"):
        Predictions.concatenate([])
    with pytest.raises(DataError, match="2 tables of predictions to pool but 1 names"):
        Predictions.concatenate([small(), small()], folds=["one"])
