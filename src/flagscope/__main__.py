"""`python -m flagscope` is the command line."""

from flagscope.cli import main

if __name__ == "__main__":
    main()
