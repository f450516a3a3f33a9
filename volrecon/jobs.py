"""Jobs and recipes: what a TOML file may say, checked before anything runs."""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from volrecon.diffusion import Diffusion
from volrecon.errors import ConfigError
from volrecon.formats.scan_tables import Grid
from volrecon.memory import parsed_size
from volrecon.resources import resource
from volrecon.solvers import METHODS as SOLVERS
from volrecon.solvers import Method
from volrecon.strict_toml import Strict, key_paths, load_toml, validated

METHODS: dict[str, type[Method]] = {**SOLVERS, "diffusion": Diffusion}
"""Every algorithm a recipe may name."""

RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]*")


class Compute(Strict):
    """How a job runs; nothing here changes what is reconstructed beyond rounding.

    Attributes:
        tier: where the run's volumes live: "ram", "zarr" scratch on disk, or "auto", whichever the memory allows.
        memory: what the whole process may take, such as "2GiB"; default 70 % of what is free.
        scratch: folder for the state and the zarr tier; default inside the run directory.
        block_mib: size of one array's block in a pass; default as large as the memory allows.
        commit_seconds: time between two commits of the state; default such that they take less than 5 % of the time.
        backend: projector.
        threads: CPU threads; default all.
    """

    tier: Literal["auto", "ram", "zarr"] = "auto"
    memory: str | None = None
    scratch: str | None = None
    block_mib: Annotated[float, Field(gt=0, le=2**20)] | None = None
    commit_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    backend: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parsed_size(text)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return text


class Job(Strict):
    """One reconstruction. Relative paths are relative to the job file's folder.

    Attributes:
        scan: a `scan.zarr`.
        out: the run directory.
        method: a recipe's name or file, or a table with `recipe` and the numbers to change, or with `algorithm`.
        reference: a `volume.zarr` on the same grid, for metrics.
        grid: the volume; default the scan's suggestion.
        unit_per_mm: attenuation that is 1 inside the run; default that of +1000 HU, twice the scan's water.
    """

    scan: str
    out: str
    method: str | dict[str, Any] = "tv"
    reference: str | None = None
    grid: Grid | None = None
    unit_per_mm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    compute: Compute = Compute()

    def anchored(self, base: Path) -> Self:
        """This job with every path joined to the folder it starts from."""
        return self._with_paths(lambda path: str(base / path))

    def seen_from(self, folder: Path) -> Self:
        """This job with every path relative to another folder."""
        return self._with_paths(lambda path: os.path.relpath(Path(path).resolve(), folder.resolve()))

    def _with_paths(self, change: Callable[[str], str]) -> Self:
        paths = {name: getattr(self, name) for name in ("scan", "out", "reference")}
        changed: dict[str, Any] = {name: change(path) for name, path in paths.items() if path is not None}
        if self.compute.scratch is not None:
            changed["compute"] = self.compute.model_copy(update={"scratch": change(self.compute.scratch)})
        return self.model_copy(update=changed)


def load_job(path: Path | None, changes: list[str], given: dict[str, str]) -> tuple[Job, Path]:
    """A job from a file, `key=value` changes and command-line values; with the folder its paths start from.

    Raises:
        ConfigError: every problem at once.
    """
    tables = load_toml(path) if path else {}
    base = path.parent if path else Path()
    for key, value in given.items():
        _put(tables, key.split("."), value, f"{key}={value}")
    for change in changes:
        _set(tables, change)
    where = path or Path("the command line")
    return validated(where, Job, tables, key_paths(Job)), base


def resolve_method(method: str | dict[str, Any], base: Path = Path()) -> Method:
    """A recipe's name, file or table as the algorithm with its numbers.

    Raises:
        ConfigError: no such recipe, preset or algorithm, or keys and numbers it does not take.
    """
    table = {"recipe": method} if isinstance(method, str) else dict(method)
    path = Path("method")
    if "recipe" in table:
        path, recipe = _recipe(str(table.pop("recipe")), base)
        table = _merged(_with_preset(path, recipe, table.pop("preset", None)), table)
    if isinstance(table.get("prior"), str) and not table["prior"].startswith("builtin:"):
        table["prior"] = str(base / table["prior"])
    return _algorithm(path, table)


def describe(method: Method, paths: bool = True) -> dict[str, Any]:
    """A method as the table that resolves to it; without paths, files are named only."""
    name = next(name for name, kind in METHODS.items() if type(method) is kind)
    table = {"algorithm": name, **method.model_dump(exclude_none=True)}
    if not paths and "prior" in table:
        table["prior"] = Path(table["prior"]).name
    return table


def recipe_names() -> list[str]:
    return sorted(path.stem for path in resource("configs/methods").glob("*.toml"))


def _recipe(name: str, base: Path) -> tuple[Path, dict[str, Any]]:
    if name.endswith(".toml"):
        path = base / name
        return path, load_toml(path)
    if name not in recipe_names() or not RECIPE_NAME.fullmatch(name):
        raise ConfigError(f"method {name!r:.80} is unknown; choose one of {', '.join(recipe_names())} or a .toml file")
    path = resource(f"configs/methods/{name}.toml")
    return path, load_toml(path)


def _with_preset(path: Path, recipe: dict[str, Any], name: Any) -> dict[str, Any]:
    """A recipe with the numbers of one of its presets, by default the first."""
    presets = recipe.pop("presets", {})
    if name is None and not presets:
        return recipe
    name = next(iter(presets)) if name is None else name
    if not isinstance(presets, dict) or name not in presets:
        raise ConfigError(f"{path}: preset {name!r:.80} is unknown; choose one of {', '.join(presets) or '(none)'}")
    return _merged(recipe, presets[name])


def _merged(table: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """A table with changes, key by key in tables within; one of another `kind` is replaced whole."""
    merged = dict(table)
    for key, value in changes.items():
        old = merged.get(key)
        same = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        )
        merged[key] = _merged(old, value) if same else value
    return merged


def _algorithm(path: Path, table: dict[str, Any]) -> Method:
    name = table.pop("algorithm", None)
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"{path}: algorithm {name!r:.80} is unknown; choose one of {', '.join(METHODS)}")
    return validated(path, METHODS[name], table, key_paths(METHODS[name]))


def _set(tables: dict[str, Any], change: str) -> None:
    """Apply one `--set a.b=value`; the value is read as TOML, else as a string."""
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {change!r:.80} is not of the form key=value, such as method.lam=3e-4")
    if parts[0] == "method" and len(parts) > 1:
        tables.setdefault("method", Job.model_fields["method"].default)
    _put(tables, parts, _value(text.strip()), f"--set {change!r:.80}")


def _put(tables: dict[str, Any], parts: list[str], value: Any, what: str) -> None:
    table = tables
    for part in parts[:-1]:
        inner = table.setdefault(part, {})
        if part == "method" and isinstance(inner, str):
            inner = table[part] = {"recipe": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"{what}: {part} is {inner!r:.40}, not a table")
        table = inner
    table[parts[-1]] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError, RecursionError):
        return text
