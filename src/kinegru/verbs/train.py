"""`kinegru train DATA`: folder in, model out."""

from __future__ import annotations

from kinegru.runs.fold import siblings_in_words
from kinegru.runs.pool import mean_in_words
from kinegru.runs.train import TrainResult, train

__all__ = ["TrainResult", "show", "train"]


def show(result: TrainResult) -> None:
    """Print the outcome for people."""
    m = result.metrics
    low, high = m["wilson"]["low"], m["wilson"]["high"]
    if "mean_over_splits" in m:
        print(*mean_in_words(m["mean_over_splits"]), "Pooled:", sep="\n")
    print(f"top-1 {m['top1']:.1%} ({m['right']} of {m['clips']} test clips, 95 % interval {low:.1%} to {high:.1%})")
    print(siblings_in_words(result.siblings))
    print(f"report: {result.run / 'report.html'}")
    if (result.run / "model.safetensors").exists():
        print(f"model:  {result.run / 'model.safetensors'}")
