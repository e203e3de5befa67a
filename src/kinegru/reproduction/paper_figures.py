"""The accuracies that the paper prints, in per cent. What stands here is quoted; what does not is "not quoted here".

Cheng Nana, Zhang Rongfen, Liu Yuhong et al., Journal of Optoelectronics · Laser 34(12), 1298, 2023. Its abstract gives
the two figures of the full model, docs/model.md one more among the errata. The tables themselves are not at hand: who
has the paper adds a line a row, with the table it stands in.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """Top-1 in per cent as printed; None where it is not quoted here."""

    ucf101: float | None = None
    hmdb51: float | None = None
    source: str = ""


_FULL = Reported(95.66, 69.82, "abstract; random 3:1 split by clip")

REPORTED: dict[tuple[str, str], Reported] = {  # (table, row) -> what the paper prints
    ("table3", "lrcn"): Reported(87.9, None, "docs/model.md, errata: LRCN's own paper has 82.3 with RGB and flow"),
    ("table3", "ours"): _FULL,
    ("table4", "mcam_aff"): _FULL,
    ("figures", "ours"): _FULL,
}


def reported(table: str, row: str) -> Reported:
    """What the paper prints for a row.

    >>> reported("table3", "ours").ucf101, reported("table1", "xception").ucf101
    (95.66, None)
    """
    return REPORTED.get((table, row), Reported())
