"""What README and docs tell people to type does what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def shell(line, cwd):
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(line, shell=True, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_readme_run_and_its_python_too(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (commands,) = blocks(README, "bash")
    for line in commands.strip().splitlines():
        shell(line, tmp_path)
    for name in ("tv/volume.zarr", "tv/report.png", "difference.png", "tv.nii.gz", "half.zarr", "job/report.png"):
        assert (tmp_path / name).exists()
    (snippet,) = blocks(README, "python")
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 15


@pytest.mark.slow
def test_the_demo_runs(tmp_path):
    printed = shell("volrecon demo --out demo-out --quiet", tmp_path)
    scores = {row.split()[0]: float(row.split()[1]) for row in printed.splitlines()[1:4]}
    assert (tmp_path / "demo-out/demo.png").stat().st_size > 50_000
    assert scores["TV"] > scores["FDK"] + 4
    assert scores["SIRT"] > scores["FDK"]


def test_every_link_of_readme_and_docs_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_text_names_a_path_of_one_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".json"} and path.is_file() and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(^|[^A-Za-z0-9_.])/(work|root)/", text), name
