"""The title index: exact top-k with availability and seen filters."""
