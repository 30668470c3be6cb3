"""`python -m tfmtr.cli`: the command, too."""

from tfmtr.cli import main

if __name__ == "__main__":
    main()
