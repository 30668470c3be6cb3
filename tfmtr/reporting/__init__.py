"""One HTML page about evaluated runs: what `tfmtr report` writes."""
