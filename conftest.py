"""Examples that need another framework are left out where it is not installed."""

from importlib.util import find_spec

NEEDS = {"tinyrnn/torch/*.py": "torch", "tinyrnn/jax/*.py": "jax", "tinyrnn/exchange/to_torch.py": "torch"}
collect_ignore_glob = [files for files, package in NEEDS.items() if find_spec(package) is None]
