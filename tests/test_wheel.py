"""The wheel carries configs/ and kernels/, and runs a job away from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, cwd, **environment):
    env = {**os.environ, **environment}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_a_job_by_itself(tmp_path):
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel), cwd=tmp_path)
    assert (site / "volrecon/_share/configs/methods/tv.toml").is_file()
    assert (site / "volrecon/_share/kernels/README.md").is_file()
    assert (site / "volrecon/priors/builtin/ct.safetensors").is_file()
    work = tmp_path / "work"
    work.mkdir()
    main = "import sys, volrecon; print(volrecon.__file__); from volrecon.cli import main; main()"

    def volrecon(*arguments):
        printed = run("-c", main, *arguments, cwd=work, PYTHONPATH=str(site))
        assert printed.startswith(str(site))
        return printed

    volrecon("simulate", "--phantom", "--shape", "12,16,16", "--views", "8", "--oversample", "1", "--out", "scan.zarr")
    volrecon("run", "--scan", "scan.zarr", "--method", "cgls", "--out", "cgls", "--quiet")
    assert "every chunk present" in volrecon("verify", "scan.zarr", "cgls/volume.zarr")
