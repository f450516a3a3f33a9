"""Where `configs/` and `kernels/` are: inside the installed package, or at the top of a checkout."""

from pathlib import Path

from volrecon.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """The path of a file or folder such as "configs/methods/tv.toml".

    Raises:
        ConfigError: there is none of that name; nothing outside the two folders is ever returned.
    """
    for root in (PACKAGE / "_share", PACKAGE.parent):
        path = (root / name).resolve()
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in ("configs", "kernels") and path.exists():
            return path
    raise ConfigError(f"volrecon ships no {name!r}")
