"""What the report says in words: how the clips were divided and what that means, how sure the number is, the facts.

Written for readers who do not know what a split or a calibration error is. Only what is recorded is said.
"""

from __future__ import annotations

from typing import Any

from kinegru.evaluation.context import RunContext
from kinegru.evaluation.intervals import Interval
from kinegru.evaluation.metrics import Metrics
from kinegru.evaluation.predictions import Predictions


def protocol_words(context: RunContext, metrics: Metrics) -> list[str]:
    """How the clips were divided and what that means for the number, in plain sentences.

    >>> from kinegru.evaluation.metrics import compute_metrics
    >>> table = Predictions(["run"], ["a"], ["run"], ["ann"], [[1.0]])
    >>> protocol_words(RunContext(split="random", siblings=0), compute_metrics(table))[0]
    'Clips were drawn at random one by one, so clips of one person or recording may lie on both sides.'
    """
    sentences = [_split_words(context.split)]
    if context.siblings == 0 and metrics.groups:
        sentences.append(
            "No test clip has a sibling in training, a clip of the same group: "
            "the number says how well the model does on people and recordings it has never seen."
        )
    elif not context.siblings:  # not counted, or nothing to count by: a clip without a group has no siblings to find
        sentences.append(
            "How many test clips have a sibling in training (a clip of the same person or recording) is not known. "
            "If there are any, the numbers are too good for people and recordings never seen."
        )
    else:
        has = "test clip has a sibling" if context.siblings == 1 else "test clips have a sibling"
        sentences.append(f"{context.siblings:,} {has} in training: see the warning at the top.")
    if context.selection:
        sentences.append(f"The weights were chosen by: {context.selection}.")
    if metrics.unlabelled:
        have = "clip has no label and is" if metrics.unlabelled == 1 else "clips have no label and are"
        sentences.append(f"{metrics.unlabelled:,} predicted {have} left out of every number.")
    if metrics.distinct_clips < metrics.clips:
        twice = "some were tested more than once"
        sentences.append(f"The {metrics.clips:,} predictions are of {metrics.distinct_clips:,} clips: {twice}.")
    return sentences + list(context.notes)


def _split_words(split: str | None) -> str:
    """One sentence for the value of `--split`."""
    if not split:
        return "How the clips were split into training and test is not recorded."
    name, _, rest = split.partition(":")
    parts, _, number = rest.partition(":")
    dealt = f"The clips were dealt into {parts} parts, groups kept whole where they are known"
    words = {
        "official": f"The data's official {f'list {rest} says' if rest else 'lists say'} which clips train or test.",
        "group": "Groups (a person, a recording) were kept whole: each trains or tests, never both.",
        "random": "Clips were drawn at random one by one, so clips of one person or recording may lie on both sides.",
        "column": "The column 'split' of the data's CSV says which clips train and which test.",
        "leave-one-group-out": f"The model was trained without the group {rest} and tested on it alone."
        if rest
        else "Each group in turn was left out of training and tested by a model that never saw it, the results pooled.",
        "folds": f"{dealt}; part {number} was tested by a model trained on the others."
        if number
        else f"{dealt}; each part was tested by a model trained on the others, the results pooled.",
    }
    return words.get(name, f"Split: {split}.")


def intervals(metrics: Metrics) -> list[tuple[Interval, str]]:
    boot = metrics.bootstrap
    rows = [(metrics.wilson, "95\u00a0% interval (Wilson), clips taken as independent")]
    if boot.units > 1:
        few = "; with so few, a rough guess" if boot.units < 10 else ""
        rows.append((boot, f"95\u00a0% interval from resampling {_count(boot.units, boot.unit)}{few}"))
    return rows


def tiles(metrics: Metrics) -> list[dict[str, str]]:
    boot = metrics.mean_class_bootstrap
    span = f", 95\u00a0% interval {100 * boot.low:.1f}–\u2060{100 * boot.high:.1f}\u00a0%" if boot.units > 1 else ""
    tiles = [
        (
            "Mean class accuracy",
            _percent(metrics.mean_class_accuracy),
            f"every class that was tested counts the same{span}",
        )
    ]
    if len(metrics.classes) > 5:
        tiles.insert(
            0, ("Top-5", _percent(metrics.top5), f"the true class is among the best 5 of {len(metrics.classes)}")
        )
    tiles.append(("Most frequent class", _percent(metrics.majority), "what always answering it would give: the floor"))
    error = f"{100 * metrics.calibration_error:.1f} points"
    tiles.append(("Calibration error", error, f"between confidence and accuracy; log loss {metrics.log_loss:.3f}"))
    return [{"name": name, "value": value, "words": words} for name, value, words in tiles]


def sizes(context: RunContext, predictions: Predictions, metrics: Metrics) -> list[tuple[str, str, str]]:
    """Clips and groups of training, validation and test; what is not known is a dash."""
    known = predictions.labelled().groups
    groups = len(set(known)) if all(known) else None
    rows = [
        ("Training", context.train_clips, context.train_groups),
        ("Validation", context.validation_clips, context.validation_groups),
        ("Test", context.test_clips or metrics.clips, context.test_groups or groups),
    ]
    shown = [row for row in rows if row[1] is not None]
    return [(name, f"{clips:,}", "–" if part is None else f"{part:,}") for name, clips, part in shown]


def model_facts(context: RunContext) -> list[tuple[str, str]]:
    rows = [
        ("Name", context.model),
        ("Parameters", context.parameters),
        ("Of these trained", context.trained_parameters),
    ]
    rows += [("Backbone weights", context.weights)]
    return _facts([*rows, *context.model_options.items(), *context.preprocessing.items()])


def training_facts(context: RunContext) -> list[tuple[str, str]]:
    time = None if context.seconds is None else _duration(context.seconds)
    rows = [("Profile", context.profile), ("Epochs", context.epochs), ("Epoch kept", context.best_epoch)]
    rows += [
        ("Time", time),
        ("Seed", None if context.seed is None else str(context.seed)),
        ("Machine", context.machine),
    ]
    return _facts([*rows, *context.settings.items()]) + [
        (name, str(number)) for name, number in context.versions.items()
    ]


def calibration_words(metrics: Metrics) -> str:
    sure, right = metrics.mean_confidence, metrics.top1
    verdict = "about as sure as it is right"
    if abs(sure - right) > 0.02:
        verdict = "surer than it is right" if sure > right else "less sure than it is right"
    return (
        f"A score is worth something if 80 % sure means right in 80 of 100 clips. The model is {_percent(sure)} sure "
        f"on average and right in {_percent(right)} of the clips: {verdict}. Weighted over the bins, confidence and "
        f"accuracy are {100 * metrics.calibration_error:.1f} points apart (expected calibration error)."
    )


def clips_words(metrics: Metrics) -> str:
    wrong = metrics.clips - metrics.right
    if not wrong:
        return "Every clip was recognised. These are the ones the model was least sure of."
    shown = sum(not row.correct for row in metrics.worst)
    words = (
        f"The {shown} errors the model was surest of, of {wrong:,}"
        if shown < wrong
        else f"All {_count(wrong, 'error')}"
    )
    rest = ", then clips recognised with little confidence" if shown < len(metrics.worst) else ""
    return f"{words}{rest}. A wrong label, a clip that shows two actions or a fault of the data is often found here."


def _facts(rows: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(_name(name), _value(value)) for name, value in rows if value is not None]


def _name(key: str) -> str:
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    """Seconds for people: 48 s, 12 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _value(value: Any) -> str:
    """A setting as text: numbers with thousands, lists with commas, no brackets."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return str(value)
