"""The title index: exact, streamed or approximate top-k, with filters inside the search."""
