"""Sphinx: offline pages; formulas become MathML when the pages are built, so that no script and no network is needed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from docutils.nodes import SkipNode

from tinyrnn import __version__
from tinyrnn.symbolic.derivation.pages import mathml, mathml_lines

project = "tinyrnn"
copyright = "2026, The tinyrnn developers"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
exclude_patterns = ["compiler/template.md", "compiler/clusters_template.md"]
html_theme = "furo"
html_title = "tinyrnn"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_extra_path = ["extra"]
html_css_files = ["formulas.css"]


def inline(translator, node):
    translator.body.append(mathml(node.astext()))
    raise SkipNode


def block(translator, node):
    translator.body.append(mathml_lines(node.astext()))
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True}
