"""`python -m volrecon` is the command `volrecon`; torchrun needs a module."""

from volrecon.cli import main

if __name__ == "__main__":
    main()
