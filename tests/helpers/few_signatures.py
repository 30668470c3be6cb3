"""Exports with some of their signatures, for tests that ask no others: `recommend` takes longest to trace."""

from tfmtr import exporting


def keep_signatures(patch, *names):
    """Versions that are exported while the `MonkeyPatch` lasts have these signatures alone."""
    every = exporting.signatures_of

    def some(*arguments):
        return {name: signature for name, signature in every(*arguments).items() if name in names}

    patch.setattr(exporting, "signatures_of", some)
