"""Fault matrix, configuration (C1-C3): job and method files, tables and --set."""

import time

import pytest

from volrecon.errors import ConfigError
from volrecon.jobs import Job, load_job, recipe_names, resolve_method
from volrecon.solvers import METHODS

GIVEN = {"scan": "scan.zarr", "out": "run"}


def job_file(tmp_path, text: str):
    path = tmp_path / "job.toml"
    path.write_text('scan = "scan.zarr"\nout = "run"\n' + text + "\n", encoding="utf-8")
    return path


WRONG = [
    ("methd = 'tv'", ["methd: unknown key; did you mean method?"]),
    ("[compute]\ntiers = 'ram'", ["compute.tiers: unknown key; did you mean compute.tier?"]),
    ("[compute]\ntier = 'gpu'", ["compute.tier", "'gpu'"]),
    ("[compute]\nblock_mib = -1", ["compute.block_mib", "greater than 0", "-1"]),
    ("[compute]\nblock_mib = nan", ["compute.block_mib", "finite"]),
    ("[compute]\nblock_mib = inf", ["compute.block_mib", "finite"]),
    ("[compute]\nblock_mib = '32'", ["compute.block_mib", "'32'"]),
    ("[compute]\nthreads = 2.0", ["compute.threads"]),
    ("[compute]\nthreads = true", ["compute.threads"]),
    ("unit_per_mm = 0", ["unit_per_mm", "greater than 0"]),
    ("[grid]\nshape = [1, 2]\nvoxel_mm = 1", ["grid.shape"]),
    ("[grid]\nshape = [0, 2, 2]\nvoxel_mm = 1", ["grid.shape.0"]),
    ("[grid]\nshape = [1, 2, 2]", ["grid.voxel_mm: missing"]),
    ("[grid]\nshape = [1, 2, 2]\nvoxel_mm = [1, 1, nan]", ["grid.voxel_mm"]),
    ("method = 3", ["method"]),
    ("reference = 1\nunit_per_mm = '2'\nbanana = 1", ["3 problems", "reference", "unit_per_mm", "banana"]),
    ("scan = 'twice'", ["line 3"]),
    ("a = \n", ["line 3"]),
]


@pytest.mark.parametrize(("text", "parts"), WRONG, ids=[text for text, _ in WRONG])
def test_C1_a_job_file_that_cannot_be_meant(tmp_path, text, parts):
    with pytest.raises(ConfigError) as caught:
        load_job(job_file(tmp_path, text), [], {})
    for part in (*parts, "job.toml"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_C1_missing_keys_are_all_named():
    with pytest.raises(ConfigError, match=r"command line: 2 problems\n  scan: missing\n  out: missing"):
        load_job(None, [], {})


@pytest.mark.parametrize("name", METHODS)
def test_C1_unknown_keys_of_every_method(name):
    key = sorted(METHODS[name].model_fields)[0]
    with pytest.raises(ConfigError) as caught:
        resolve_method({"algorithm": name, key + "x": 1, "zzz": 2})
    assert f"{key}x: unknown key; did you mean {key}?" in str(caught.value)
    assert "zzz: unknown key" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None, [1], -1, True], ids=repr)
@pytest.mark.parametrize("name", METHODS)
def test_C1_no_number_of_a_method_takes_what_is_none(name, value):
    numbers = [k for k, f in METHODS[name].model_fields.items() if f.annotation in (int, float)]
    assert numbers
    for key in numbers:
        with pytest.raises(ConfigError, match=rf"\n  {key}: "):
            resolve_method({"algorithm": name, key: value})


def test_C1_a_recipe_file_is_checked_with_its_name(tmp_path):
    (tmp_path / "mine.toml").write_text('algorithm = "tv"\nlamda = 1\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.toml: 1 problem\n  lamda: unknown key; did you mean lam\?"):
        resolve_method("mine.toml", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.lam", "not of the form key=value"),
        ("=3", "not of the form"),
        ("method..lam=3", "not of the form"),
        ("out.x=3", "out is 'run', not a table"),
        ("compute.block_mib=-3", "compute.block_mib"),
        ("compute.block_mib=nan", "finite"),
        ("compute.tier=gpu", "compute.tier"),
        ("comput.tier=ram", "comput"),
        ("grid.shape=[1,2]", "grid.shape"),
        ("unit_per_mm=" + "9" * 5000, "unit_per_mm"),
        ("unit_per_mm=" + "[" * 100_000, "unit_per_mm"),
        ("unit_per_mm=__import__('os')", "unit_per_mm"),
        ("a" + ".a" * 20_000 + "=1", "a: unknown key|too deep"),
    ],
    ids=lambda text: text[:30],
)
def test_C1_changes_that_cannot_be_meant(change, message):
    with pytest.raises(ConfigError, match=message):
        load_job(None, [change], dict(GIVEN))


def test_C1_changes():
    changes = ["method.lam=3e-4", "compute.tier=zarr", "grid.shape=[1, 2, 3]", "grid.voxel_mm=2", "reference=a b.zarr"]
    job, _ = load_job(None, changes, {**GIVEN, "method": "tv"})
    assert job.method == {"recipe": "tv", "lam": 3e-4}
    assert (job.compute.tier, job.grid.shape, job.grid.voxel_mm) == ("zarr", (1, 2, 3), (2.0, 2.0, 2.0))
    assert job.reference == "a b.zarr"


def test_C1_changing_the_default_method():
    job, _ = load_job(None, ["method.lam=3e-4"], dict(GIVEN))
    assert resolve_method(job.method).lam == 3e-4


def test_C1_changing_a_method_table(tmp_path):
    path = job_file(tmp_path, '[method]\nrecipe = "tv"\nrho = 0.5\n')
    job, base = load_job(path, ["method.lam=3e-4"], {"out": "/elsewhere"})
    assert job.method == {"recipe": "tv", "rho": 0.5, "lam": 3e-4}
    assert (job.out, base) == ("/elsewhere", tmp_path)


HOSTILE = [
    "_target_ = 'os.system'",
    "[method]\n_target_ = 'os.system'\nalgorithm = 'tv'",
    "reference = !!python/object/apply:os.system [touch canary]",
    "'${HOME}' = 1",
    "x = " + "{a = " * 10_000,
    "a" + ".a" * 100_000 + " = 1",
    "#" * 10_000_000,
    "\n".join(f"[t{k}]" for k in range(10_000)),
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20])
def test_C2_hostile_files(tmp_path, text):
    started = time.monotonic()
    with pytest.raises(ConfigError):
        resolve_method(load_job(job_file(tmp_path, text), [], {})[0].method)
    assert time.monotonic() - started < 2
    assert [p.name for p in tmp_path.iterdir()] == ["job.toml"]


def test_C2_nothing_is_expanded(tmp_path):
    job, _ = load_job(job_file(tmp_path, "reference = '${HOME}/~/$(id)'"), [], {})
    assert job.reference == "${HOME}/~/$(id)"


NAMES = ["os.system", "../secrets", "/etc/passwd", "tv\0", "configs/methods/tv", "TV", "", "tv ", "~", "a" * 10_000]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_C3_names_that_are_in_no_registry(name):
    for method in (name, {"recipe": name}):
        with pytest.raises(ConfigError, match="choose one of") as caught:
            resolve_method(method)
        assert all(known in str(caught.value) for known in recipe_names())
    with pytest.raises(ConfigError, match="choose one of") as caught:
        resolve_method({"algorithm": name})
    assert all(known in str(caught.value) for known in METHODS)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["../../nowhere.toml", "missing.toml", "/nowhere/x.toml", "a\0.toml"])
def test_C3_recipe_files_that_are_not_there(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot be read|NUL|not TOML"):
        resolve_method(name, tmp_path)


def test_jobs_are_values():
    job = Job(**GIVEN)
    with pytest.raises(ValueError, match="frozen"):
        job.out = "other"
