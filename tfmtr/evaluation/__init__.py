"""Metrics per slice and task, comparisons between models, terminal tables."""
