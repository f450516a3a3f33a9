"""Peak memory, traffic and time at one budget while the volume grows from 128^3 to 1024^3.

    python bench/memory_scaling.py [--sizes 128 256 512 768 1024] [--budget 2GiB] [--views 8]
                                   [--folder scaling] [--out bench/results/memory_scaling.json]

For each size a cone-beam scan of spheres is written and reconstructed by FDK and by two iterations of CGLS, each in a
process of its own (`volrecon run --memory BUDGET`), reports and pictures included. Finished cells are kept: the same
command goes on. 1024^3 needs about 40 GB of disk in --folder. Besides the JSON a table is printed and a plot written.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import matplotlib as mpl
from process import logged, measured
from record import write_record
from spheres import sphere_scan

METHODS = {"fdk": [], "cgls": ["--set", "method.iterations=2"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 768, 1024])
    parser.add_argument("--budget", default="2GiB")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("scaling"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory_scaling.json")
    args = parser.parse_args()
    cells = json.loads(args.out.read_text())["cells"] if args.out.exists() else []
    for size in args.sizes:
        for method in METHODS:
            wanted = {"size": size, "method": method, "views": args.views, "budget": args.budget}
            if not any(wanted.items() <= cell.items() for cell in cells):
                cells.append({**wanted, **cell(args, size, method)})
                command = f"python bench/memory_scaling.py --views {args.views} --budget {args.budget}"
                write_record(args.out, command, cells=cells)
                print(row(cells[-1]), file=sys.stderr)
    cells.sort(key=lambda cell: (cell["method"], cell["size"]))
    print("\n".join(table(cells)))
    plot(cells, args.out.with_suffix(".png"))


def cell(args, size, method):
    folder = args.folder / f"{method}-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scan = args.folder / f"{size}-{args.views}.zarr"
    if not scan.exists():
        sphere_scan(scan, size, args.views)
    run = folder / "run"
    arguments = ["run", "--scan", scan, "--out", run, "--method", method, "--memory", args.budget, "--quiet"]
    found = measured([*arguments, *METHODS[method]], folder)
    start = logged(run, "start")
    shutil.rmtree(folder)
    return {
        "tier": start["tier"],
        "planned_mib": round(start["planned_memory"] / 2**20),
        "baseline_mib": round(start["baseline_memory"] / 2**20),
        "volume_gib": round(4 * size**3 / 2**30, 3),
        **found,
    }


def row(c):
    return (
        f"| {c['method']} | {c['size']}³ | {c['volume_gib']:.3g} | {c['tier']} | "
        f"{c['planned_mib']} | {c['peak_mib']} | {c['read_gib']:.3g} | {c['written_gib']:.3g} | {c['seconds']:.0f} |"
    )


def table(cells):
    yield "| method | voxels | volume GiB | tier | planned MiB | peak MiB | read GiB | written GiB | s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    yield from map(row, cells)


def plot(cells, path):
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method in METHODS:
        own = [c for c in cells if c["method"] == method]
        axes.plot([c["volume_gib"] for c in own], [c["peak_mib"] / 1024 for c in own], "o-", label=f"{method}, peak")
        axes.plot([c["volume_gib"] for c in own], [c["planned_mib"] / 1024 for c in own], ":", label=f"{method}, plan")
    own = sorted({c["volume_gib"] for c in cells})
    axes.plot(own, own, color="grey", linewidth=0.8, label="one volume")
    axes.set(xscale="log", yscale="log", xlabel="volume, GiB", ylabel="memory of the process, GiB")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
