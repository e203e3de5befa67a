"""The commands and the Python of README and docs, run as they stand; files they name exist, translations agree."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from small_set import moving_bar, write_small_set

from kinegru.__main__ import main
from kinegru.models.backbones import import_timm
from kinegru.training.settings import TrainSettings
from kinegru.video.writer import write_video

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "docs/data.md",
    "docs/train.md",
    "docs/predict.md",
    "docs/timeline.md",
    "docs/explain.md",
    "docs/live.md",
    "docs/engines.md",
    "docs/benchmarks.md",
    "docs/reproduce.md",
]
TRAINED_FIRST = PAGES[PAGES.index("docs/predict.md") : PAGES.index("docs/reproduce.md")]  # training ended before them
TRANSLATIONS = {"README.md": "README.zh.md"} | {page: page.replace("docs/", "docs/zh/") for page in PAGES[1:]}
ALL_PAGES = sorted(
    {"README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    | {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")}
)

NOT_RUN_HERE = {
    "make": "the demo and the tests take minutes; .ci/run runs the tests",
    "source": "activates the environment, which the tests run in",
    "python3": "makes an environment and downloads packages: make does the same in .ci/run",
    ".venv/bin/pip": "downloads packages: make does the same in .ci/run",
    ".venv/bin/pre-commit": "changes the repository's git hooks",
    "python": "the benchmarks take minutes; tests/test_benchmarks.py runs those that need no trained model",
    "torchrun": "two processes are compared with one in tests/training",
}

# What is appended to every training command: the same run, small enough for a test.
SMALL = shlex.split("--frames 3 --size 32 --epochs 1 --batch 4 --views 1 --workers 0 --device cpu --patience 0")
SMALL += shlex.split("--options.backbone xception_small --options.width 8 --options.hidden_channels 4")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def commands(page: str) -> list[list[str]]:
    """Every command line of a page, without its comment, as words."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def as_small(words: list[str], weights: Path) -> list[str]:
    """The command with this page's placeholders and sizes made small."""
    words = [str(weights) if word.endswith(".safetensors") and "/" not in word else word for word in words]
    if words[0] not in ("train", "reproduce"):
        return words
    if "--backbone-weights" not in words:
        words = [*words, "--backbone-weights", "none"]  # ImageNet's would be downloaded
    return [*words, *SMALL]


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the pages name: clips, videos, a labelled CSV, a small UCF101, a weights file, recipes."""
    folder = tmp_path_factory.mktemp("things")
    write_small_set(folder / "clips", people=("ann", "bob", "cyd", "dan"))
    write_video(folder / "video.mp4", moving_bar("left", 20))
    for number, action in enumerate(("left", "right")):
        (folder / "new").mkdir(exist_ok=True)
        write_video(folder / "new" / f"{action}.mp4", moving_bar(action, 30 + number))
    (folder / "new-clips.csv").write_text("path,label\nnew/left.mp4,left\nnew/right.mp4,right\n")
    write_ucf101(folder / "UCF-101")
    torch.save(import_timm().create_model("xception_small", num_classes=0).state_dict(), folder / "weights.pth")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    return folder


def write_ucf101(folder: Path) -> None:
    """Two classes of four groups under UCF101's names, with lists of its form."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
    train, test = [], []
    for number, (name, action) in enumerate((("Archery", "left"), ("YoYo", "right")), start=1):
        (folder / name).mkdir()
        for group in range(1, 5):
            clip = f"{name}/v_{name}_g{group:02d}_c01.avi"
            write_video(folder / clip, moving_bar(action, 40 + group), codec="mpeg4")
            (test if group == 4 else train).append(clip if group == 4 else f"{clip} {number}")
    for split in (1, 2, 3):
        (lists / f"trainlist{split:02d}.txt").write_text("\n".join(train) + "\n")
        (lists / f"testlist{split:02d}.txt").write_text("\n".join(test) + "\n")


@pytest.mark.parametrize("page", [*PAGES, "docs/claims.md"])
def test_commands_and_python_of_a_page_run(page, things, tmp_path, monkeypatch, capsys):
    sandbox = tmp_path / "sandbox"
    shutil.copytree(things, sandbox)
    monkeypatch.chdir(sandbox)
    monkeypatch.setenv("KINEGRU_CACHE", str(tmp_path / "cache"))
    if page in TRAINED_FIRST:
        assert main(["train", "clips", "--backbone-weights", "none", *SMALL]) == 0
    ran = 0
    for words in commands(page):
        if words[0] in NOT_RUN_HERE:
            continue
        assert words[0] == "kinegru", f"{page}: neither run here nor excused: {' '.join(words)}"
        words, into = (words[:-2], words[-1]) if ">" in words else (words, None)
        capsys.readouterr()
        status = main(as_small(words[1:], sandbox / "weights.pth"))
        printed = capsys.readouterr()
        assert status == 0, f"{page}: {' '.join(words)}\n{printed.err}"
        if into:
            Path(into).write_text(printed.out)
        ran += 1
    assert ran, f"{page} has no command"
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_a_translation_has_the_same_commands_and_python(page):
    for language in ("bash", "python"):
        assert blocks(TRANSLATIONS[page], language) == blocks(page, language)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_links_lead_to_files_and_named_files_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), f"{page} links to {link}"
    for named in re.findall(r"`((?:src|recipes|tests|docs|results)/[\w./-]*)`", text):
        assert (ROOT / named).exists(), f"{page} names {named}"


def test_every_equation_of_the_paper_has_a_file():
    """Equations 1 to 20 stand in the table of docs/model.md, and the class named beside each is in the file."""
    rows = re.findall(
        r"^\| ([\d–]+) \| .*? \| `(\w+)` \| `(src/[\w/.]+)` \|$", (ROOT / "docs/model.md").read_text(), re.M
    )
    covered = set()
    for equations, name, file in rows:
        assert re.search(rf"^(class|def) {name}\b", (ROOT / file).read_text(), re.M), f"{name} is not in {file}"
        first, _, last = equations.partition("–")
        covered |= set(range(int(first), int(last or first) + 1)) if first else set()
    assert covered == set(range(1, 21))


def test_the_table_of_models_lists_them_all_with_their_parameters():
    import kinegru

    for page in ("README.md", "README.zh.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(f"`{name}`" in text for name in kinegru.list_models())
    printed = {}
    for page in ("README.md", "README.zh.md"):
        rows = [line.split("|") for line in (ROOT / page).read_text(encoding="utf-8").splitlines()]
        printed[page] = {}
        for row in rows:
            if len(row) == 6:
                names = re.findall(r"`(\w+)`", row[1])
                cells = [re.split("[,、] ?", cell.strip()) for cell in row[3:5]]
                pairs = zip(*(cell * len(names) if len(cell) == 1 else cell for cell in cells), strict=True)
                printed[page] |= dict(zip(names, pairs, strict=False))
    for name in kinegru.list_models():
        model = kinegru.create_model(name, 101)
        millions = [
            f"{sum(p.numel() for p in part) / 1e6:.2f}" for part in (model.parameters(), model.trained_parameters())
        ]
        for rows in printed.values():
            total, trained = rows[name]
            assert [total, total if trained in ("all", "全部") else trained] == millions, name


def test_the_papers_recipe_is_the_defaults_but_for_the_read_out():
    recipe = yaml.safe_load((ROOT / "recipes/paper.yaml").read_text())
    assert TrainSettings(**recipe) == TrainSettings(options={"readout": "last"})


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_a_recipe_trains(recipe, things, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", str(things / "clips"), "--config", str(ROOT / "recipes" / recipe), *SMALL]
    command += ["--cache", str(tmp_path / "cache"), "--backbone-weights", "none", "--group-pattern", r"/([a-z]+)_"]
    assert main([*command, "--split", "group", "--out", "run"]) == 0, capsys.readouterr().err
    assert Path("run/model.safetensors").exists()
