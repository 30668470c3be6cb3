"""Keras optimizers that the field needs: row-sparse ones for large embedding tables, and Clippy Adagrad."""
