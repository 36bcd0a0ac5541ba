"""Runs every example, one after the other; fails where one fails or does not beat its baselines."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HELPERS = ("all", "common", "against_torch")
UNTRAINED = ("vanishing",)  # nothing for PyTorch to train
# run once; all others with three seeds, to see what is chance
LONG = ("adding", "copy_memory", "pronounce", "text", "vanishing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few steps of each: does everything run?")
    parser.add_argument("--torch", action="store_true", help="let PyTorch train the same networks")
    parser.add_argument("--out", type=Path, default=None, help="where figures and results go")
    arguments = parser.parse_args()
    options = ["--short"] * arguments.short + (["--out", str(arguments.out)] if arguments.out else [])
    failed = []
    for path in sorted(HERE.glob("*.py")):
        if path.stem not in (*HELPERS, *(UNTRAINED if arguments.torch else ())):
            print(f"== {path.stem}", flush=True)
            script = [str(HERE / "against_torch.py"), path.stem] if arguments.torch else [str(path)]
            script += [] if arguments.short or path.stem in LONG else ["--seeds", "3"]
            if subprocess.run([sys.executable, *script, *options], check=False).returncode:
                failed.append(path.stem)
    print(f"failed: {', '.join(failed)}" if failed else "all examples ran")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
