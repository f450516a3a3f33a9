"""Kill a run at random moments, start it again, and compare what comes out byte for byte.

    python bench/kill_and_resume.py [--rounds 20] [--methods fdk cgls tv] [--tiers ram zarr]

Every round starts the same job, kills the process (SIGKILL) at a random moment of the run, and gives the same command
again until it ends; each restart may be killed once more. The finished `volume.zarr` must have the same files with the
same bytes as one that nobody disturbed. Ends with status 1 where a round differs.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from process import logged
from record import write_record
from spheres import sphere_scan

SETTINGS = {
    "fdk": [],
    "cgls": ["--set", "method.iterations=12"],
    "tv": ["--set", "method.iterations=6"],
}

VOXELS = {"fdk": 288, "cgls": 48, "tv": 40}
"""A side; FDK goes by slabs of 32 MiB, of which there should be some."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    parser.add_argument("--tiers", nargs="+", default=["ram", "zarr"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON record")
    args = parser.parse_args()
    print("| method | tier | rounds | kills | rounds that resumed | volumes that differ |")
    print("|---|---|---|---|---|---|", flush=True)
    cells = [(method, tier) for method in args.methods for tier in args.tiers]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        for method in args.methods:
            sphere_scan(Path(name) / f"{method}.zarr", VOXELS[method], 12)
        results = list(pool.map(lambda cell: rounds(Path(name), *cell, args), cells))
    if args.out:
        write_record(args.out, f"python bench/kill_and_resume.py --rounds {args.rounds}", cells=results)
    sys.exit(any(result["different"] for result in results))


def rounds(folder, method, tier, args):
    command = [
        sys.executable, "-m", "volrecon", "run", "--scan", folder / f"{method}.zarr", "--method", method, "--quiet",
        "--set", f"compute.tier={tier}", "--set", "compute.commit_seconds=0", *SETTINGS[method],
    ]  # fmt: skip
    whole = folder / f"{method}-{tier}-whole"
    shutil.rmtree(whole, ignore_errors=True)
    subprocess.run([*command, "--out", whole], check=True, stdout=subprocess.DEVNULL)
    expected = contents(whole / "volume.zarr")
    length = 1.2 * logged(whole, "step")["seconds"] + 0.05
    chance = random.Random(f"{args.seed} {method} {tier}")
    kills = resumed = different = 0
    for _ in range(args.rounds):
        out = folder / f"{method}-{tier}-killed"
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(2):
            kills += killed([*command, "--out", out], out, chance.uniform(0, length))
        if not (out / "volume.zarr").exists():
            subprocess.run([*command, "--out", out], check=True, stdout=subprocess.DEVNULL)
        resumed += (out / "log.jsonl").read_text().count('"event": "start"') > 1
        different += contents(out / "volume.zarr") != expected
    found = {"rounds": args.rounds, "kills": kills, "resumed": resumed, "different": different}
    print(f"| {method} | {tier} | " + " | ".join(map(str, found.values())) + " |", flush=True)
    return {"method": method, "tier": tier, **found}


def killed(command, out, delay):
    """Start a run and kill it `delay` seconds after its log began; whether it was still running."""
    if (out / "volume.zarr").exists():
        return False
    log = out / "log.jsonl"
    lines = log.read_text().count("\n") if log.exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > lines):
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def contents(volume):
    return {path.relative_to(volume): path.read_bytes() for path in volume.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
