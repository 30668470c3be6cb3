"""Towers and logits to probabilities and losses: one paper, one file, one function that returns a `Head`.

A file `name.py` has one function `name(tasks, ...options) -> Head`; the file's name is its only
registration. Files that begin with `_` are shared pieces.
"""
