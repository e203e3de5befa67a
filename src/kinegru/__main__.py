"""`kinegru VERB ...`: from a verb to its function, nothing else; nothing heavy is imported before the verb is known."""

from __future__ import annotations

import importlib
import os
import sys

VERBS = {  # verb -> what it does; its function lives in kinegru.verbs.<verb>
    "demo": "the whole way on a small data set made here, or on your clips: train, evaluate, predict, report",
    "check": "decode every clip of a data set and name what is wrong",
    "shrink": "small copies of all clips, for training that decodes them again in every epoch",
    "train": "folder in, model out: train on part of the clips, test on the rest",
    "evaluate": "a model on labelled clips: predictions, measures with intervals, report",
    "predict": "what happens in these video files",
    "timeline": "what happens when in a recording of any length: JSON, CSV, subtitles",
    "explain": "where and when the model looked: heat over the video, gates and score over time",
    "live": "what happens now: camera, network stream, file or pipe, with the delay and what was missed",
    "export": "the model for other runtimes, faster on a processor: ONNX, eight bits, OpenVINO; checked against torch",
    "benchmark": "how fast a model is on this machine: live and on whole windows, with every engine it has",
    "reproduce": "a table or figure of the paper, every row under one protocol, beside the paper's figures",
}

HELP = """usage: kinegru VERB ...

Human action recognition in video.

{verbs}

`kinegru VERB --help` explains a verb."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb with command-line arguments.

    Returns the exit status: 0 if all was done, 1 for a failure, 2 for wrong use.
    """
    try:
        status = _run(*(sys.argv[1:] if arguments is None else arguments) or ["--help"])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output, such as `head`, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(verb: str, *rest: str) -> int:
    if verb in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {name:<10} {text}" for name, text in VERBS.items())))
        return 0
    if verb == "--version":
        print(f"kinegru {importlib.import_module('kinegru').__version__}")
        return 0
    if verb not in VERBS:
        what = f"no option {verb!r} without a verb" if verb.startswith("-") else f"no verb {verb!r}"
        print(f"kinegru: there is {what}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return importlib.import_module("kinegru.cli").run(verb, list(rest))


if __name__ == "__main__":
    sys.exit(main())
