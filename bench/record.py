"""Results with what made them: command, commit, machine, date."""

import datetime
import json
import os
import platform
import subprocess


def write_record(path, command, **content):
    """Write `content` as JSON beside the command, the commit and the machine."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    record = {
        "command": command,
        "commit": commit,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **content,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
