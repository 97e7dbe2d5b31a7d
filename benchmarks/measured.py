"""`python -m finetune ...` with its time and its largest memory as the last line."""

from __future__ import annotations

import sys
import time

from benchmarks.contest import peak_mb, report
from finetune.__main__ import main

if __name__ == "__main__":
    started = time.perf_counter()
    status = main(sys.argv[1:])
    report(seconds=time.perf_counter() - started, peak_mb=peak_mb())
    sys.exit(status)
