"""What `volrecon plan` says of every job in configs/jobs, beside what was measured.

    python bench/plan_honesty.py [--out bench/results/plan_honesty.json]

Simulates the scan that the jobs name, copies each job beside it and runs it as a process of its own.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from process import logged, measured
from record import write_record

JOBS = Path(__file__).parents[1] / "configs" / "jobs"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plan_honesty.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = ["simulate", "--phantom", "--views", 24, "--photons", 1e5, "--out", folder / "scan.zarr"]
        measured(scan, folder)
        cells = [cell(folder, job) for job in sorted(JOBS.glob("*.toml"))]
    write_record(args.out, "python bench/plan_honesty.py", cells=cells)
    print("| job | tier | planned MiB | peak MiB | above the baseline: planned | measured | s planned | s measured |")
    print("|---|---|---|---|---|---|---|---|")
    for c in cells:
        print(
            f"| {c['job']} | {c['tier']} | {c['planned_mib']} | {c['peak_mib']} | "
            f"{c['planned_mib'] - c['baseline_mib']} | {c['peak_mib'] - c['baseline_mib']} | "
            f"{c['planned_seconds']:.0f} | {c['seconds']:.0f} |"
        )


def cell(folder, job):
    shutil.copy(job, folder)
    found = measured(["run", folder / job.name, "--out", folder / job.stem, "--quiet"], folder)
    start = logged(folder / job.stem, "start")
    planned = {name: round(start[f"{name}_memory"] / 2**20) for name in ("planned", "baseline")}
    return {
        "job": job.stem,
        "tier": start["tier"],
        "planned_mib": planned["planned"],
        "baseline_mib": planned["baseline"],
        "planned_seconds": start["planned_seconds"],
        **found,
    }


if __name__ == "__main__":
    main()
