"""README, CONTRIBUTING and docs: every Python block runs, and prints what stands below it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .gpu import toolchain

ROOT = Path(__file__).parent.parent
DOCUMENTS = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
             if "```python" in p.read_text() and p.parent.name != "reference"]
MARK = "=== end of a block ==="
STAND_IN = """
from tinyrnn.backends.cuda import device
if device.missing():
    import pytest
    from tinyrnn_tests.gpu import fake_cupy
    fake_cupy.install(pytest.MonkeyPatch())
"""  # pages about the GPU run on the stand-in where there is none


def blocks(text):
    """Pairs of a Python block and what it must print (None when nothing is said)."""
    fences = re.findall(r"```(\w+)\n(.*?)```", text, re.S)
    for i, (kind, body) in enumerate(fences):
        if kind == "python":
            follows = fences[i + 1][1] if i + 1 < len(fences) and fences[i + 1][0] == "text" else None
            yield body, follows


def matches(shown, printed):
    """Line by line; `...` stands for any lines, and a line may be cut off at its end."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r".*\n" for line in shown.splitlines())
    return re.search(r"\A" + pattern, printed + "\n", re.M) is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_blocks_run_and_print_what_they_show(path, tmp_path):
    found = list(blocks(path.read_text()))
    code = f"print({MARK!r})\n".join(body + "\n" for body, _ in found)
    for package in ("torch", "jax") if path.name == "frameworks.md" else ():
        pytest.importorskip(package)
    if path.name == "gpu.md":
        if toolchain.COMPILER is None:
            pytest.skip("no C++ compiler here to run kernels on the processor")
        code = STAND_IN + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env={**__import__("os").environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    for (body, shown), printed in zip(found, done.stdout.split(MARK + "\n"), strict=True):
        assert shown is None or matches(shown, printed), f"{body}\nprints\n{printed}\nnot\n{shown}"


def test_links_and_pictures_exist():
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            made = target.startswith("reference/")  # when the docs are built
            assert made or (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_reference_has_every_public_name():
    """A heading for each name, its signature and its words; Sphinx finds nothing to complain of when the docs are built."""
    sys.path.insert(0, str(ROOT / "docs"))
    reference = importlib.import_module("reference")
    pages = {p.stem: text for p, text in reference.generated().items()}
    count = 0
    for title, (room, _) in reference.ROOMS.items():
        for name in reference.names(room):
            assert f"## `{name}`\n" in pages[title], name
            count += 1
    assert count > 180
    assert "draw(what, file=None, *, steps=None" in pages["tinyrnn"] or "draw(what: " in pages["tinyrnn"]
    assert pages["nn"].count("```pycon") > 20
