"""Figures are written as PNG and SVG, readable at any number of classes, and fit to stand inside a page."""

import warnings
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinegru.errors import DataError
from kinegru.evaluation import figure_style
from kinegru.evaluation.figure_style import INK, ON_CELL, RIGHT, WRONG, inline_svg, save_figure, short
from kinegru.evaluation.figures import (
    accuracy_curves,
    class_bars,
    confusion_matrix,
    draw_figures,
    loss_curve,
    read_history,
    reliability_diagram,
)
from kinegru.evaluation.metrics import Metrics, compute_metrics
from kinegru.evaluation.predictions import Predictions

HISTORY = [
    {
        "epoch": 1,
        "train_loss": 1.5,
        "train_top1": 0.4,
        "train_top5": 0.8,
        "val_loss": 1.6,
        "val_top1": 0.3,
        "val_top5": 0.7,
    },
    {
        "epoch": 2,
        "train_loss": 0.9,
        "train_top1": 0.7,
        "train_top5": 0.9,
        "val_loss": 1.1,
        "val_top1": 0.5,
        "val_top5": 0.9,
    },
]
TRAIN_ONLY = [{key: value for key, value in row.items() if not key.startswith("val")} for row in HISTORY]


def measured(names: list[str], clips: int = 40) -> Metrics:
    rng = np.random.default_rng(len(names))
    scores = rng.dirichlet(np.full(len(names), 0.4), size=clips)
    labels = [names[k] for k in rng.integers(0, len(names), clips)]
    return compute_metrics(
        Predictions(names, [str(i) for i in range(clips)], labels, [None] * clips, scores), bootstrap=20
    )


def lines(figure: object) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines if line.get_label()[0] != "_"}


def test_every_figure_is_written_whole_as_png_and_svg(tmp_path: Path) -> None:
    figures = draw_figures(measured(["run", "walk", "wave"]), HISTORY, best_epoch=2)
    assert list(figures) == ["loss", "accuracy", "confusion_matrix", "reliability", "classes"]
    for name, figure in figures.items():
        png, svg = save_figure(figure, tmp_path / "figures", name)
        with Image.open(png) as image:
            image.load()
            assert min(image.size) > 200
            assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert len(list((tmp_path / "figures").iterdir())) == 10


def test_curves_show_the_columns_of_the_history() -> None:
    assert lines(loss_curve(HISTORY)) == {"validation": [1.6, 1.1], "training": [1.5, 0.9]}
    shares = {name: [round(value) for value in values] for name, values in lines(accuracy_curves(HISTORY)).items()}
    assert shares == {
        "top-5, validation": [70, 90],
        "top-1, validation": [30, 50],
        "top-5, training": [80, 90],
        "top-1, training": [40, 70],
    }


def test_curves_without_validation_show_training_alone() -> None:
    assert list(lines(loss_curve(TRAIN_ONLY))) == ["training"]
    assert list(lines(accuracy_curves(TRAIN_ONLY))) == ["top-5, training", "top-1, training"]
    figures = draw_figures(measured(["run", "walk"]), None)
    assert not {"loss", "accuracy"} & figures.keys()


def test_a_history_file_is_read_with_its_gaps(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,train_loss,val_loss,seconds\n1,0.5,,12\n2,nan,0.4,11\n")
    assert read_history(path) == [
        {"epoch": 1, "train_loss": 0.5, "seconds": 12},
        {"epoch": 2, "val_loss": 0.4, "seconds": 11},
    ]
    assert lines(loss_curve(path)) == {"training": [0.5], "validation": [0.4]}
    path.write_text("step,train_loss\n1,0.5\n")
    for file, said in ((path, "column 'epoch'"), (tmp_path / "none.csv", "cannot be read")):
        with pytest.raises(DataError, match=said) as refusal:
            read_history(file)
        assert str(refusal.value).startswith(str(file)) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("classes", [1, 2, 10, 101])
def test_the_matrix_names_every_class_without_overlap(classes: int) -> None:
    names = [f"SomeLongAction{number}" for number in range(classes)]
    metrics = measured(names, clips=150)
    figure = confusion_matrix(metrics)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == names
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(two) for one, two in pairwise(boxes))
        assert all(label.get_fontsize() >= 5 for label in labels)
    counts = [int(text.get_text().split("\n")[0]) for text in axes.texts if text.get_text()[0].isdigit()]
    assert sum(counts) == 150 and len(counts) == np.count_nonzero(metrics.confusion_matrix)


def luminance(colour: str, strength: float = 1.0) -> float:
    """WCAG relative luminance of a colour laid on white."""
    value = [strength * int(colour[i : i + 2], 16) / 255 + 1 - strength for i in (1, 3, 5)]
    return float(
        np.dot([0.2126, 0.7152, 0.0722], [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in value])
    )


@pytest.mark.parametrize("hit", [True, False])
def test_counts_can_be_read_on_cells_of_any_strength(hit: bool) -> None:
    names = ["a", "b"]
    for right in range(1, 40, 3):
        said = ["a"] * right + ["b"] * (40 - right)
        scores = [[1.0, 0.0] if word == "a" else [0.0, 1.0] for word in said]
        labels = ["a" if hit else "b"] * 40
        metrics = compute_metrics(
            Predictions(names, [str(i) for i in range(40)], labels, [None] * 40, scores), bootstrap=1
        )
        axes = confusion_matrix(metrics).axes[0]
        for cell, text in zip(axes.patches, [text for text in axes.texts if "%" in text.get_text()], strict=True):
            share = int(text.get_text().split("\n")[0]) / 40
            fill = RIGHT if cell.get_xy()[0] == cell.get_xy()[1] else WRONG
            one, two = luminance(fill, 0.12 + 0.88 * share), luminance(text.get_color())
            assert text.get_color() in (INK, ON_CELL)
            assert (max(one, two) + 0.05) / (min(one, two) + 0.05) > 3.5


def test_bars_show_recall_of_each_tested_class_best_first() -> None:
    metrics = measured([f"c{k:03}" for k in range(101)], clips=80)
    figure = class_bars(metrics)
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    tested = {row.label: row.recall for row in metrics.per_class if row.support}
    assert set(shown) == set(tested) and [tested[name] for name in shown] == sorted(tested.values(), reverse=True)
    widths = [bar.get_width() for axes in figure.axes for bar in axes.patches]
    assert widths == pytest.approx([100 * tested[name] for name in shown])


def test_reliability_shows_the_bins_that_hold_clips() -> None:
    metrics = measured(["run", "walk", "wave"])
    upper, lower = reliability_diagram(metrics).axes
    assert [bar.get_height() for bar in lower.patches] == [row.count for row in metrics.reliability]
    assert [bar.get_height() for bar in upper.patches] == pytest.approx(
        [100 * row.accuracy for row in metrics.reliability]
    )


ODD = ["<b>&\"'", "$x^$", "走路", "two\nlines", "x\udc80y", "\x1b[31m", "\\frac{"]


def test_odd_names_are_drawn_without_a_warning_and_the_svg_parses(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = confusion_matrix(measured(ODD))
        _, svg = save_figure(figure, tmp_path, "odd")
        inside = inline_svg(figure, "odd", 'a "quoted" <description>')
    for text in (svg.read_text(encoding="utf-8"), inside):
        words = {
            "".join(element.itertext()).strip()
            for element in ElementTree.fromstring(text).iter()
            if "text" in element.tag
        }
        assert {"<b>&\"'", "$x^$", "走路", "two lines", "x y"} <= words


def test_a_font_without_bold_is_used_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(figure_style, "_CJK_FONTS", ["cmss10"])  # matplotlib's own, in one weight
    save_figure(loss_curve([{"epoch": 1, "train_loss": 1.2}]), tmp_path, "loss")
    assert not caplog.records


def test_an_inline_figure_brings_nothing_that_clashes_with_its_page() -> None:
    metrics = measured(["run", "walk"])
    pictures = [
        ElementTree.fromstring(inline_svg(reliability_diagram(metrics), name, "words")) for name in ("one", "two")
    ]
    ids = [{element.get("id") for element in root.iter() if element.get("id")} for root in pictures]
    assert not ids[0] & ids[1]
    for root, known in zip(pictures, ids, strict=True):
        assert root.get("role") == "img" and root.get("aria-label") == "words"
        assert not [element for element in root.iter() if element.tag in ("style", "metadata")]
        text = ElementTree.tostring(root, encoding="unicode")
        targets = {element.get("href", "#")[1:] for element in root.iter("use")}
        targets |= {part.split(")")[0] for part in text.split("url(#")[1:]}
        assert targets and targets <= known
        assert "http" not in text and "#ffffff" not in text and "var(--ink)" in text


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    one, two = (save_figure(loss_curve(HISTORY), tmp_path / name, "loss")[1].read_bytes() for name in "ab")
    assert one == two


def test_long_names_are_cut_and_short_ones_kept() -> None:
    assert short("HandstandPushups") == "HandstandPushups"
    assert len(short("a" * 60)) == 26 and short("a" * 60).endswith("…")
