"""A command run as a process of its own, with the memory, the time and the bytes it took."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def measured(arguments, folder):
    """Run `volrecon ARGUMENTS`; peak resident bytes, seconds, bytes read and written (system calls, cached or not)."""
    started = time.perf_counter()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "volrecon", *map(str, arguments)], stdout=said, stderr=subprocess.STDOUT
        )
        read = written = 0
        while True:
            moved = _moved(process.pid)
            read, written = moved or (read, written)
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"volrecon {' '.join(map(str, arguments))} ended with {process.returncode}:\n"
                         + (folder / "said.txt").read_text())  # fmt: skip
    return {
        "peak_mib": round(usage.ru_maxrss / 1024),
        "seconds": round(time.perf_counter() - started, 1),
        "read_gib": round(read / 2**30, 2),
        "written_gib": round(written / 2**30, 2),
    }


def _moved(pid):
    try:
        lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return int(lines["rchar"]), int(lines["wchar"])


def entries(run, event):
    """The entries of a kind in a run's log, in order."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry for entry in found if entry["event"] == event]


def logged(run, event):
    """The last entry of a kind in a run's log."""
    return entries(run, event)[-1]
