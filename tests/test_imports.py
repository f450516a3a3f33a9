"""Arrows between modules run one way, heavy packages are imported in one place each, and nothing runs foreign code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "volrecon"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    ["errors"],
    [
        "geometry",
        "strict_toml",
        "resources",
        "metrics",
        "volume",
        "noise",
        "tiling",
        "sampling",
        "swap",
        "memory",
        "stopping",
    ],
    ["cuda"],
    ["formats", "phantoms", "projectors", "resample", "figures", "store", "patches", "ascending", "transpose"],
    ["solvers", "simulate", "priors"],
    ["datasteps"],
    ["diffusion"],
    ["jobs", "preprocess", "sample", "rehearsal"],
    ["plan"],
    ["engine", "exchange"],
    ["report", "training"],
    ["cli"],
    ["__main__"],
]
"""A module imports from layers above its own line, never from its own or below."""

ONLY_IN = {
    "astra": "projectors/astra.py",
    "tomosipo": "geometry/tomosipo.py",
    "cupy": "cuda.py",
    "monai": "priors/monai_unet.py",
    "matplotlib": "figures/",
    "typer": "cli/",
    "rich": "cli/",
}

FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("os", "system"), ("os", "popen")}


def inner(file: Path) -> str:
    """The module of volrecon that a file belongs to: its folder or its own name."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Full names of everything imported anywhere in a file, and of literal arguments of import_module."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            names |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return names


def wrong_arrows(module: str, names: set[str]) -> list[str]:
    level = {name: k for k, layer in enumerate(LAYERS) for name in layer}
    parts = (name.split(".") for name in names)
    used = {p[1] for p in parts if p[0] == "volrecon" and len(p) > 1} - {module}
    return [f"{module} imports {other}" for other in sorted(used) if level[other] >= level[module]]


def misplaced(place: str, names: set[str]) -> list[str]:
    tops = {name.split(".")[0] for name in names}
    return [f"{place} imports {top}" for top in sorted(tops) if not place.startswith(ONLY_IN.get(top, ""))]


def dangerous(tree: ast.AST) -> list[str]:
    found = [name for name in imported(tree) if name.split(".")[0] in FORBIDDEN_IMPORTS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(node.func.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{a}.{b}" for a, b in FORBIDDEN_ATTRIBUTES if (node.value.id, node.attr) == (a, b)]
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += (
                ["allow_pickle"] if not (isinstance(node.value, ast.Constant) and node.value.value is False) else []
            )
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_file(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = imported(tree)
    if file.parent != PACKAGE or file.stem != "__init__":
        assert wrong_arrows(inner(file), names) == []
    assert misplaced(str(file.relative_to(PACKAGE)), names) == []
    assert dangerous(tree) == []


def test_every_module_has_a_layer():
    modules = {inner(file) for file in FILES} - {"__init__"}
    assert sorted(modules) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from yaml import safe_load",
        "eval('1')",
        "import torch\ntorch.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=flag)",
        "def f():\n    import shelve",
    ],
)
def test_the_test_finds_what_is_dangerous(code):
    assert dangerous(ast.parse(code))


def test_the_test_finds_wrong_arrows_and_places():
    tree = ast.parse("from volrecon import engine\nfrom volrecon.store.scans import Scan\nimport astra")
    assert wrong_arrows("geometry", imported(tree)) == ["geometry imports engine", "geometry imports store"]
    assert wrong_arrows("cli", imported(tree)) == []
    assert misplaced("geometry/scan.py", imported(tree)) == ["geometry/scan.py imports astra"]
    assert misplaced("projectors/astra.py", imported(tree)) == []


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_M6_importing_volrecon_imports_nothing_heavy():
    heavy = ["astra", "cupy", "monai", "torch", "numba", "zarr", "matplotlib"]
    assert run(f"import sys, volrecon; print([m for m in {heavy} if m in sys.modules])") == "[]\n"


def test_M6_the_cpu_path_imports_neither_astra_nor_cupy():
    code = (
        "import sys\n"
        "sys.modules['cupy'] = None\n"  # zarr imports it where it finds it; whoever else tried would fail
        "import volrecon as vr\n"
        "[getattr(vr, name) for name in vr.__all__]\n"
        "grid = vr.VolumeGeometry((2, 2, 2), (1.0, 1.0, 1.0))\n"
        "vr.projector(grid, vr.parallel(detector_shape=(2, 2), pixel_mm=1.0, angles=[0.0]))\n"
        "print([m for m in ('astra', 'cupy', 'monai', 'tomosipo') if sys.modules.get(m)])"
    )
    assert run(code) == "[]\n"


def test_unknown_names_are_attribute_errors():
    import volrecon

    with pytest.raises(AttributeError, match="no_such_thing"):
        volrecon.no_such_thing  # noqa: B018
    assert set(dir(volrecon)) >= {"reconstruct", "open_scan", "cone"}
