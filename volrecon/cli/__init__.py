"""The command line. Every command is thin: it parses, calls the library, prints."""

import sys
import warnings
from typing import Any

from volrecon.errors import ResourceError, VolreconError


def main() -> None:
    """Run a command; errors become one message and an exit code (2 usage, 3 data, 4 integrity, 5 resources, ...)."""
    # Imported here, so that `import volrecon.cli` costs nothing; each registers its commands with the application.
    from volrecon.cli import demo, info, measured, runs, sample, scans, train, volumes  # noqa: F401
    from volrecon.cli.app import app, printable

    warnings.showwarning = _show_warning
    try:
        app()
    except VolreconError as error:
        # Names out of files may hold what a terminal would obey.
        print("volrecon: " + "\n".join(map(printable, str(error).splitlines())), file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"volrecon: {printable(str(error))}", file=sys.stderr)
        sys.exit(ResourceError.exit_code)
    except KeyboardInterrupt:
        print("volrecon: interrupted", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        print("volrecon: memory ran out; use a smaller volume or compute.tier=zarr", file=sys.stderr)
        sys.exit(5)


def _show_warning(message: Any, *where: Any, **rest: Any) -> None:
    print(f"volrecon: warning: {message}", file=sys.stderr)
