"""What every Python process of the tests begins with, as commands do."""

import contextlib

with contextlib.suppress(ImportError):  # in an environment without the package
    from tfmtr.startup import start_quickly

    start_quickly()
