"""`python -m tests.support.branches 90`: every room's branches are covered to so many percent, or it exits with 1."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOMS = ("ai", "node", "storage")


def main(least: float) -> int:
    """Prints the share of each room; reads the data that `coverage combine` left."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)], check=True)
        files = json.loads(report.read_text())["files"]
    covered: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, file in files.items():
        room = name.partition("/")[0]
        covered[room] += file["summary"]["covered_branches"]
        total[room] += file["summary"]["num_branches"]
    shares = {room: 100.0 * covered[room] / max(1, total[room]) for room in ROOMS}
    print("branches covered: " + ", ".join(f"{room} {share:.1f} %" for room, share in shares.items()))
    return int(min(shares.values()) < least)


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1])))
