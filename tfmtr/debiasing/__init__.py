"""What is done about popularity bias: one paper, one file, one function that changes a head.

A file `name.py` has one function `name(tasks, head, ...options) -> Head`; the file's name is its only registration.
Files that begin with `_` are shared pieces.
"""

from tfmtr.debiasing._popularity import TITLE, negatives, pairwise_head, popularity_of

__all__ = ["TITLE", "negatives", "pairwise_head", "popularity_of"]
