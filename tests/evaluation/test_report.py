"""The report stands alone, says what happened, and lets no name break out of the text."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinegru.errors import DataError, UsageError, VideoError
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.evaluation.report import write_report
from kinegru.evaluation.report_words import protocol_words

ODD = ["<script>alert(1)</script>", "\"quoted\" & 'single'", "走路", "$x$", "odd\udc80\x07bytes", "walk"]
HISTORY = [{"epoch": 1, "train_loss": 1.5, "train_top1": 0.4}, {"epoch": 2, "train_loss": 0.9, "train_top1": 0.7}]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags with attributes, its text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u2060", "").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def table(names: list[str], clips: int = 30, group: bool = True) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        names,
        [f"{names[i % len(names)][:6]}/<i>{i}</i>.avi" for i in range(clips)],
        [names[i % (len(names) - 1)] for i in range(clips)],  # the last class is never tested
        [f"person {i % 4}" if group else None for i in range(clips)],
        rng.dirichlet(np.full(len(names), 0.5), size=clips),
    )


def frames(clip: str) -> list[np.ndarray]:
    if "<i>3<" in clip:
        raise VideoError(f"{clip}: truncated")
    return [np.full((72, 96, 3), 40 * i, dtype=np.uint8) for i in range(6)]


CONTEXT = {
    "title": "A <title>",
    "data": 'folder "x"',
    "split": "random",
    "siblings": 12,
    "train_clips": 1000,
    "validation_clips": 200,
    "train_groups": 40,
    "model": "sc_xception_convgru",
    "parameters": 20806952,
    "preprocessing": {"frames": 40, "size": 299, "mean": (0.5, 0.5, 0.5)},
    "profile": "tail",
    "epochs": 2,
    "best_epoch": 1,
    "seed": 0,
    "seconds": 3725.0,
    "settings": {"learning_rate": 1e-4, "ema": False},
    "versions": {"torch": "2.13.0"},
    "machine": "two cores",
    "bad_clips": {"bad<1>.avi": "holds no video stream"},
    "command": "kinegru train 'a & b' --split random",
    "notes": ["A note <here>."],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert write_report(folder, table(ODD), HISTORY, CONTEXT, frames) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_figures_lie_beside_the_report_as_png_and_svg(run: Path) -> None:
    names = {"loss", "accuracy", "confusion_matrix", "reliability", "classes"}
    assert {file.name for file in (run / "figures").iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("png", "svg")
    }
    assert {file.name for file in run.iterdir()} == {"report.html", "figures"}


def test_the_page_asks_nothing_from_anywhere(run: Path, page: Page) -> None:
    assert not page.open  # every tag was closed
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert not page.all("link") and not page.all("iframe")
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or (tag == "img" and value.startswith("data:image/jpeg;base64,"))
        assert not [name for name in attributes if name.startswith("on")]
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.startswith("#")
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_links_and_references_inside_the_page_have_a_target(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for tag, attributes in page.tags if attributes.get("href") and tag in ("a", "use")]
    assert links and set(links) <= set(ids)


def test_names_are_text_and_nothing_else(run: Path, page: Page) -> None:
    assert len(page.all("script")) == 1
    assert not page.all("i")[len(page.all("b")) :] or all("style" in tag for tag in page.all("i"))  # only our own bars
    for words in (
        "<script>alert(1)</script>",
        "\"quoted\" & 'single'",
        "走路",
        "A <title>",
        'folder "x"',
        "bad<1>.avi",
    ):
        assert words in page.text
    assert "odd\ufffd\ufffdbytes" in page.text and "A note <here>." in page.text
    assert "kinegru train 'a & b' --split random" in page.text
    (run / "report.html").read_bytes().decode("utf-8")  # no lone surrogate came through


def test_the_policy_lets_our_script_run(run: Path) -> None:
    import hashlib

    text = (run / "report.html").read_text(encoding="utf-8")
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text.replace("&#39;", "'")


def test_thumbnails_are_strips_of_four_frames(page: Page) -> None:
    shown = compute_metrics(table(ODD)).worst
    images = page.all("img")
    assert len(images) == sum("<i>3<" not in row.clip for row in shown) > 0
    for image in images:
        assert image["alt"] and image["alt"].startswith("Four frames of ")
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) as strip:
            assert strip.size == (4 * 160 + 3 * 3, 120)
            greys = [strip.getpixel((163 * k + 80, 60))[0] for k in range(4)]
        assert np.abs(np.array(greys) - [0, 80, 120, 200]).max() < 8  # frames 0, 2, 3, 5 of six


def test_what_cannot_be_seen_is_said(page: Page) -> None:
    pictures = page.all("svg")
    assert len(pictures) == 5 and all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert page.tags[0] == ("html", {"lang": "en"})
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))


def test_the_headline_gives_the_count_and_both_intervals(page: Page) -> None:
    m = compute_metrics(table(ODD))
    assert f"{100 * m.top1:.1f} %" in page.text and f"{m.right} of 30 test clips recognised" in page.text
    for interval in (m.wilson, m.bootstrap):
        assert f"{100 * interval.low:.1f}–{100 * interval.high:.1f} %" in page.text
    assert "resampling 4 groups" in page.text
    assert "1 class has no test clip and counts for nothing" in page.text


def test_the_circumstances_are_told(page: Page) -> None:
    told = ("20,806,952", "0.5, 0.5, 0.5", "1 h 2 min", "Learning rate 0.0001", "Ema no", "torch 2.13.0", "two cores")
    for words in (*told, "Training 1,000 40", "Validation 200 –", "Test 30 4", "Seed 0", "holds no video stream"):
        assert words in page.text


def test_a_leak_stands_before_the_number(run: Path, page: Page) -> None:
    words = "Leak: 12 of 30 test clips (40.0 %) have a sibling in training."
    assert words in page.text
    assert page.text.index(words) < page.text.index("test clips recognised")
    assert page.all("aside")[0]["role"] == "note"


def test_no_leak_no_warning(tmp_path: Path) -> None:
    path = write_report(tmp_path / "clean.html", table(["run", "walk", "wave"]), context=RunContext(siblings=0))
    page = Page(path.read_text(encoding="utf-8"))
    assert "Leak" not in page.text and "No test clip has a sibling in training" in page.text
    assert [file.name for file in tmp_path.iterdir()] == ["clean.html"]  # a path that ends in .html gets the page alone


def test_no_siblings_are_claimed_only_where_groups_are_known() -> None:
    for grouped, said in ((True, "No test clip has a sibling"), (False, "is not known")):
        metrics = compute_metrics(table(["run", "walk"], group=grouped), bootstrap=1)
        assert said in protocol_words(RunContext(split="random", siblings=0), metrics)[1]


def test_nothing_but_predictions_is_enough(tmp_path: Path) -> None:
    one = Predictions(["run"], ["a.mp4"], ["run"], [None], [[1.0]])
    page = Page(write_report(tmp_path / "r.html", one).read_text(encoding="utf-8"))
    assert "1 of 1 test clips recognised" in page.text and "is not recorded" in page.text
    assert not page.all("img") and "Every clip was recognised" in page.text
    for absent in ("None", "Training", "Curves", "Clips skipped", "How to repeat it", "resampling"):
        assert absent not in page.text


def test_a_report_of_nothing_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    nothing = Predictions(["run"], ["a.mp4"], [None], [None], [[1.0]])
    with pytest.raises(DataError, match="nothing to measure"):
        write_report(tmp_path / "run", nothing)
    with pytest.raises(UsageError, match="knows no 'modell'"):
        write_report(tmp_path / "run", table(["run", "walk"]), context={"modell": "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_context_survives_a_dict_and_missing_values() -> None:
    context = RunContext.of({**CONTEXT, "weights": None})
    assert RunContext.of(dataclasses.asdict(context)) == context and RunContext.of(None) == RunContext()
    assert RunContext.of({"settings": None}).settings == {}


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("official:2", "official list 2 says"),
        ("official", "official lists say"),
        ("group", "kept whole"),
        ("random", "drawn at random one by one"),
        ("column", "column 'split'"),
        ("leave-one-group-out:daria", "without the group daria"),
        ("leave-one-group-out", "Each group in turn"),
        ("folds:5:2", "dealt into 5 parts, groups kept whole where they are known; part 2"),
        ("folds:5", "dealt into 5 parts, groups kept whole where they are known; each part"),
        ("by hand", "Split: by hand."),
        (None, "not recorded"),
    ],
)
def test_every_split_is_put_in_plain_words(split: str | None, said: str) -> None:
    metrics = compute_metrics(table(["run", "walk"]), bootstrap=1)
    words = protocol_words(RunContext(split=split), metrics)
    assert said in words[0] and "is not known" in words[1]


def test_overlap_and_missing_labels_are_owned_up_to() -> None:
    one = table(["run", "walk"], clips=4)
    twice = Predictions.concatenate([one, one, Predictions(one.classes, ["x"], [None], [None], [[0.5, 0.5]])])
    words = " ".join(protocol_words(RunContext(siblings=1), compute_metrics(twice, bootstrap=1)))
    assert "8 predictions are of 4 clips" in words and "1 predicted clip has no label" in words
    assert "1 test clip has a sibling" in words


def test_many_classes_make_a_page(tmp_path: Path) -> None:
    names = [f"Action{k}" for k in range(33)]
    page = Page(write_report(tmp_path / "r.html", table(names, clips=99)).read_text(encoding="utf-8"))
    assert all(name in page.text for name in names) and not page.open
