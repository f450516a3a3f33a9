"""TOML files checked against pydantic models: nothing is coerced, nothing unknown is dropped, all problems at once."""

import difflib
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails

from volrecon.errors import ConfigError

LARGEST_FILE = 2**20

# tomllib needs memory in the square of a dotted key's length: a 160 kB key ends in the out-of-memory killer.
LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16}""")


class Strict(BaseModel):
    """A table: exact types (an integer may stand for a float), no unknown keys, finite numbers, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def _repeated(count: int) -> WrapValidator:
    """Let one number stand for `count` equal ones, and be wrong only once."""

    def spread(value: object, check: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return check(value)
        try:
            return check((value,) * count)
        except ValidationError as error:
            raise ValueError(f"{error.errors()[0]['msg']}, found {value!r:.80}") from None

    return WrapValidator(spread)


Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Length = Annotated[float, Field(gt=0, le=1e9)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

# TOML arrays arrive as lists: only the container is lax, the numbers in it stay strict.
Numbers2 = Annotated[tuple[Number, Number], Field(strict=False)]
Numbers3 = Annotated[tuple[Number, Number, Number], Field(strict=False)]
Counts3 = Annotated[tuple[Count, Count, Count], Field(strict=False)]
Lengths2 = Annotated[tuple[Length, Length], Field(strict=False), _repeated(2)]
Lengths3 = Annotated[tuple[Length, Length, Length], Field(strict=False), _repeated(3)]

M = TypeVar("M", bound=Strict)


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file of at most 1 MB.

    Raises:
        ConfigError: missing, too large, or not TOML, with the line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ConfigError(f"{path}: more than {LARGEST_FILE} bytes; put long lists into files of their own")
        text = data.decode("utf-8").replace("\r\n", "\n")
        if LONG_KEY.search(text):
            raise ConfigError(f"{path}: a key of more than 16 dotted parts")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def validated(path: Path, model: type[M], tables: dict[str, Any], known: Collection[str]) -> M:
    """The file's tables as a model; `known` are the key paths from which a misspelt one is guessed.

    Raises:
        ConfigError: all problems of the file, each with its key path.
    """
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        lines = [_problem(details, known) for details in error.errors(include_url=False)]
    count = f"{len(lines)} problem{'s' * (len(lines) > 1)}"
    raise ConfigError("\n  ".join([f"{path}: {count}", *lines]))


def key_paths(model: type[BaseModel], prefix: str = "") -> set[str]:
    """All key paths of a model, such as "detector.rows"."""
    paths = set()
    for name, field in model.model_fields.items():
        paths.add(prefix + name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                paths |= key_paths(kind, f"{prefix}{name}.")
    return paths


def _problem(details: ErrorDetails, known: Collection[str]) -> str:
    key = ".".join(map(str, details["loc"])) or "file"
    if details["type"] == "missing":
        return f"{key}: missing"
    if details["type"] == "extra_forbidden":
        return f"{key}: {_unknown(key, known)}"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if details["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message}, found {details['input']!r:.80}"


def _unknown(key: str, known: Collection[str]) -> str:
    if key in known:
        return "does not go with the other keys of this file"
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    near += [path for path in sorted(known) if path.split(".")[-1] == key.split(".")[-1]]
    return f"unknown key; did you mean {near[0]}?" if near else "unknown key"
