"""Start-up: wall time of `recdistill --help` and of `import recdistill`, each in fresh processes.

Beside them stands the bare interpreter, which nothing can undercut, and whether torch was loaded on the way.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import report

GOAL_SECONDS = 0.3
LOADS_TORCH = """
import sys
sys.argv = ["recdistill", "--help"]
from recdistill.cli.main import main
try:
    main()
except SystemExit:
    pass
sys.stdout.flush()
sys.exit(3 if "torch" in sys.modules else 0)
"""


def commands() -> dict[str, list[str]]:
    """Return what is timed; the installed script where there is one, else the module it calls."""
    script = Path(sys.executable).with_name("recdistill")
    module = [sys.executable, "-c", "from recdistill.cli.main import main; main()"]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import recdistill": [sys.executable, "-c", "import recdistill"],
        "recdistill --help": [*([str(script)] if script.exists() else module), "--help"],
        "import torch": [sys.executable, "-c", "import torch"],
    }


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return its wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "TERM": "dumb"})
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')[-1500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    walls: dict[str, list[float]] = {name: [] for name in commands()}
    cpus: dict[str, list[float]] = {name: [] for name in commands()}
    for _ in range(options.repeats):
        for name, command in commands().items():
            wall, cpu = timed(command)
            walls[name].append(wall)
            cpus[name].append(cpu)
    loads_torch = (
        subprocess.run([sys.executable, "-c", LOADS_TORCH], capture_output=True, check=False).returncode == 3
    )
    rows = [(name, 1e3 * min(walls[name]), 1e3 * min(cpus[name])) for name in walls]
    reached = min(walls["recdistill --help"]) < GOAL_SECONDS and not loads_torch
    text = report.table(("command", "wall min ms", "CPU min ms"), rows)
    verdict = "met" if reached else "missed"
    text += f"\n\nGoal: `recdistill --help` under {GOAL_SECONDS} s without torch: {verdict}."
    content = {
        "seconds": {name: {"wall_min": min(walls[name]), "cpu_min": min(cpus[name])} for name in walls},
        "help_loads_torch": loads_torch,
        "goal_met": reached,
    }
    report.save("startup", options.threads, options.out, content, text)


if __name__ == "__main__":
    main()
