"""The benchmarks are scripts that import each other by name, as they do when run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
