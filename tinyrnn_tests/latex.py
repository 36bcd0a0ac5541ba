"""A LaTeX on this machine, for the tests that compile what was written."""

import shutil
import subprocess

import pytest

KNOWS_BEAMER = bool(shutil.which("pdflatex")) and subprocess.run(["kpsewhich", "beamer.cls", "pgfmath.sty"], capture_output=True).returncode == 0
needs_latex = pytest.mark.skipif(not KNOWS_BEAMER, reason="there is no LaTeX with Beamer here; .ci/run installs one")
