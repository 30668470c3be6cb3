"""Logs to labelled examples: Ibis expressions, run by DuckDB here and by Spark elsewhere."""
