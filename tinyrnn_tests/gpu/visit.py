"""A visit to a machine with a GPU: the probe, or the tests, the benchmark and the sanitizers.  `.ci/gpu` calls this.

    python -m tinyrnn_tests.gpu.visit probe|whole --out FOLDER
"""

import argparse
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from tinyrnn.bench.gpu_visit import BENCHMARK, run
from tinyrnn.bench.steps import TimedCommand

SANITIZERS = ("memcheck", "racecheck")


def tests(out):
    """The tests that have a GPU to run on; none falls back to the stand-in."""
    workers = ["-n", "8"] if find_spec("xdist") else []
    return [TimedCommand("tests", [sys.executable, "-m", "pytest", "-q", *workers, "--maxfail=20", f"--junitxml={out}/gpu-tests.xml",
                           "-v", "-p", "no:cacheprovider", "-p", "no:benchmark", "-m", "gpu and not slow",
                           "tinyrnn_tests/test_gpu.py", "tinyrnn_tests/test_backends.py"], 110, environment={"TINYRNN_GPU": "required"})]


def sanitizers():
    """compute-sanitizer on small runs of our own kernels; nothing where it is not installed."""
    tool = shutil.which("compute-sanitizer")
    return [TimedCommand(kind, [tool, "--tool", kind, "--error-exitcode", "9", "--kernel-name", "kernel_substring=tr_",
                        sys.executable, "-m", "tinyrnn_tests.gpu.small"], 30) for kind in SANITIZERS] if tool else []


def main(arguments=None):
    p = argparse.ArgumentParser("tinyrnn_tests.gpu.visit", description=__doc__.splitlines()[0])
    p.add_argument("what", choices=("probe", "whole"))
    p.add_argument("--out", default="docs/benchmarks")
    p.add_argument("--seconds", type=float)
    p.add_argument("--module", default=BENCHMARK, help="what runs a part (in tests: on the stand-in)")
    p.add_argument("--short", action="store_true", help="tiny sizes")
    args = p.parse_args(arguments)
    if Path(args.out).exists() and not Path(args.out).is_dir():
        p.error(f"--out {args.out}: that is no folder")
    (Path(args.out) / "gpu-tests.xml").unlink(missing_ok=True)
    return run(Path(args.out), args.what, tests=tests(args.out), sanitizers=sanitizers(), seconds=args.seconds, short=args.short,
               module=args.module)


if __name__ == "__main__":
    raise SystemExit(main())
