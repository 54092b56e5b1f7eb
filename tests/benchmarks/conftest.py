"""The scripts of benchmarks/ are no package: make their folder importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
