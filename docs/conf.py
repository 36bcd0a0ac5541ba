"""Sphinx: offline pages; formulas become MathML when the pages are built, so that no script and no network is needed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import posixpath
from urllib.parse import quote

import reference
from docutils.nodes import SkipNode
from sphinx.writers.html5 import HTML5Translator

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
html_css_files = ["formulas.css", "pictures.css"]


def inline(translator, node):
    translator.body.append(mathml(node.astext()))
    raise SkipNode


def block(translator, node):
    translator.body.append(mathml_lines(node.astext()))
    raise SkipNode


class Translator(HTML5Translator):
    """A picture opens in full when it is clicked."""

    def visit_image(self, node):
        name = self.builder.images.get(node["uri"])
        where = posixpath.join(self.builder.imgpath, quote(name)) if name else node["uri"]
        self.body.append(f'<a class="picture" href="{where}">')
        super().visit_image(node)
        self.body.append("</a>")


def setup(app):
    app.connect("config-inited", reference.write)
    app.set_translator("html", Translator)
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True}
