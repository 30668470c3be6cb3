"""Slow studies, a folder each: `study.py` makes the lines of `results.jsonl`, and the pages of them."""
