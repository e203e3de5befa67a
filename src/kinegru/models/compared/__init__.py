"""The systems that table 3 compares with, where they are more than a row of options: one file a paper.

LRCN and TSN are rows of `kinegru.models.zoo` alone. Each file says what its paper gives and what is our reading; the
figures that the papers report are not repeated here.
"""
