"""The command line. Every command is thin: it parses, calls the library, prints."""

from volrecon.cli.app import main

__all__ = ["main"]
