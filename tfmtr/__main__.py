"""`python -m tfmtr`: the command."""

from tfmtr.cli import main

if __name__ == "__main__":
    main()
