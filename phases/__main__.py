"""`python -m phases`."""

from phases.cli import main

if __name__ == "__main__":
    main()
