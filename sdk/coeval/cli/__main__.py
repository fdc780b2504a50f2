"""`python -m coeval.cli`: the `coeval` command by the interpreter that runs it."""

from coeval.cli import main

if __name__ == "__main__":
    main()
