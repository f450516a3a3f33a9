"""Time of the disk tier over that of memory, and what commits cost: CGLS on 256^3 voxels, 60 and 16 views.

    python bench/tiers.py [--voxels 256] [--iterations 6] [--repeats 2] [--folder tiers]
                          [--out bench/results/tiers.json]

Runs take turns, each in a process of its own, with blocks of the same size; what counts is the time of the steps, from
the log. Scratch is uncompressed, with a crc32c on every chunk. Volumes of both tiers are compared byte for byte.
"""

import argparse
import shutil
from pathlib import Path

from process import entries, logged, measured
from record import write_record
from spheres import sphere_scan

VIEWS = (60, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("tiers"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tiers.json")
    args = parser.parse_args()
    cells = [cell(args, views) for views in VIEWS]
    write_record(args.out, f"python bench/tiers.py --voxels {args.voxels} --iterations {args.iterations}", cells=cells)
    print("| views | memory s | disk s | ratio | commits, memory | commits, disk | same bytes |")
    print("|---|---|---|---|---|---|---|")
    for c in cells:
        print(
            f"| {c['views']} | {c['ram_seconds']:.1f} | {c['zarr_seconds']:.1f} | {c['ratio']:.2f} | "
            f"{c['ram_commits']:.1%} | {c['zarr_commits']:.1%} | {c['same_bytes']} |"
        )


def cell(args, views):
    args.folder.mkdir(parents=True, exist_ok=True)
    scan = args.folder / f"{views}.zarr"
    if not scan.exists():
        sphere_scan(scan, args.voxels, views)
    seconds, commits, volumes = {"ram": [], "zarr": []}, {"ram": [], "zarr": []}, {}
    for _ in range(args.repeats):
        for tier in seconds:
            run = args.folder / f"{views}-{tier}"
            shutil.rmtree(run, ignore_errors=True)
            settings = ["--set", f"compute.tier={tier}", "--set", f"method.iterations={args.iterations}"]
            blocks = ["--set", "compute.block_mib=32", "--quiet"]
            measured(["run", "--scan", scan, "--out", run, "--method", "cgls", *settings, *blocks], args.folder)
            taken = logged(run, "step")["seconds"]
            seconds[tier].append(taken)
            commits[tier].append(sum(entry["seconds"] for entry in entries(run, "commit")) / taken)
            volumes[tier] = {p: (run / "volume.zarr" / p).read_bytes() for p in chunks(run / "volume.zarr")}
    return {
        "views": views,
        "ram_seconds": min(seconds["ram"]),
        "zarr_seconds": min(seconds["zarr"]),
        "ratio": round(min(seconds["zarr"]) / min(seconds["ram"]), 3),
        "ram_commits": round(max(commits["ram"]), 4),
        "zarr_commits": round(max(commits["zarr"]), 4),
        "same_bytes": volumes["ram"] == volumes["zarr"],
    }


def chunks(volume):
    return sorted(path.relative_to(volume) for path in (volume / "0" / "c").rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
