"""Settings of the site: notebooks, pages and the public API as one book; `make site` writes it to build/site/."""

import re
import shutil
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import mermaidx
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.utils.math import latex2mathml
from sphinx.addnodes import download_reference, pending_xref
from sphinx.transforms import SphinxTransform

from recbandits.notebook import quiet_tensorflow

ROOT = Path(__file__).parent.parent
API = ROOT / "site" / "api"  # git ignores it: a page for each layer, which `write_api` makes
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
LAYERS = [path.parent.name for path in sorted((ROOT / "src" / "recbandits").glob("*/__init__.py"))] + ["agents.ranking"]

project, version, author = "RecBandits", PROJECT["version"], "RecBandits"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "README"
include_patterns = ["*.md", "[0-9]*.ipynb", "0*/**", "learning/*.md", "docs/*.md", "site/api/*.rst"]
exclude_patterns = ["**/artifacts", "**/.ipynb_checkpoints", "0*/[!0-9]*.ipynb", "0*/*/[!0-9]*.ipynb"]

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False  # US$ 5 is a price
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

default_role = "py:obj"
suppress_warnings = ["ref.python"]  # a field that several classes have
autodoc_typehints = "none"
napoleon_use_ivar = True
napoleon_attr_annotations = False

html_theme = "furo"
html_title = "RecBandits"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = html_show_copyright = False
html_theme_options = {
    "source_view_link": f"{REPOSITORY}/blob/main/{{filename}}",
    "top_of_page_buttons": ["view"],
}


class LinksToFiles(SphinxTransform):
    """Let links to files that are no pages lead to the repository, and links to folders to their README."""

    default_priority = 5  # before Sphinx collects the files of links and pictures

    def apply(self):
        """Change the links of one page."""
        for node in list(self.document.findall(lambda node: isinstance(node, download_reference | pending_xref))):
            if node.get("reftype") == "myst" and not node.get("refdomain"):
                path = Path(self.env.relfn2path(node["reftarget"], node["refdoc"])[1]).resolve()
                if (path / "README.md").is_file():
                    name = (path / "README.md").relative_to(ROOT).with_suffix("").as_posix()
                    node.attributes |= {"refdomain": "doc", "reftarget": name, "reftargetid": None}
                elif path.exists():
                    kind = "tree" if path.is_dir() else "blob"
                    address = f"{REPOSITORY}/{kind}/main/{path.relative_to(ROOT).as_posix()}"
                    node.replace_self(nodes.reference("", "", *node.children, refuri=address))


class Badges(SphinxTransform):
    """Replace pictures of other hosts by their text, since the site works without a network."""

    default_priority = 5

    def apply(self):
        """Change the pictures of one page."""
        for node in list(self.document.findall(nodes.image)):
            if "://" in node["uri"]:
                node.replace_self(nodes.inline("", node["alt"], classes=["badge"]))


class Mermaid(Directive):
    """A diagram as a picture in the page."""

    has_content = True

    def run(self):
        """Return the node of the diagram."""
        svg = mermaidx.render("\n".join(self.content)).svg()
        return [nodes.raw("", f'<div class="mermaid">{svg}</div>', format="html")]


def visit_math(self, node):
    """Write a formula as MathML, which browsers show without a script."""
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def section(module, line):
    """Return a heading and the directive that documents a module."""
    name = module.__name__
    return f"\n{name}\n{line * len(name)}\n\n.. automodule:: {name}\n   :members:\n"


def write_api(app, config):
    """Write a page for each layer, and import what it exports lazily, so that autodoc finds it."""
    quiet_tensorflow()
    shutil.rmtree(API, ignore_errors=True)  # with pages of layers that were renamed
    API.mkdir()
    for layer in LAYERS:
        module = import_module(f"recbandits.{layer}")
        names = getattr(module, "__all__", [])
        exported = {name: getattr(module, name) for name in names}
        vars(module).update(exported)
        page = section(module, "=") + ("   :imported-members:\n" if names else "")
        page += "".join(section(each, "-") for each in exported.values() if isinstance(each, ModuleType))
        (API / f"{layer}.rst").write_text(page, encoding="utf-8")


def skip_field(app, what, name, member, skip, options):
    """Leave out the fields of a named tuple, which the docstring of its class describes."""
    return True if type(member).__name__ == "_tuplegetter" else None


def add_to_source(app, name, source):
    """Add the table of contents to the README, the first page, and a link to the exported playground to its page."""
    if name == root_doc:
        source[0] += (ROOT / "site" / "contents.md").read_text(encoding="utf-8")
    elif name == "docs/playground":
        link = '<p><a href="../playground.html">Open the playground with runs that were computed in advance.</a></p>'
        source[0] = source[0].replace("\n", f"\n\n{link}\n", 1)


def describe_pictures(app, doctree):
    """Give pictures of notebooks a text in place of their file name."""
    for node in doctree.findall(nodes.image):
        parent = node.parent
        while parent and not isinstance(parent, nodes.section):
            parent = parent.parent
        if not node.get("alt") and parent:
            node["alt"] = f"Picture of the section {parent.next_node(nodes.title).astext()}"


def unwrap_pages(app, doctree):
    """Let an HTML page in the output of a cell be a part of the page, which has a title and a heading already."""
    for node in doctree.findall(nodes.raw):
        if node.astext().startswith("<!doctype html>"):
            text = re.sub(r"<!doctype html>|<title>.*?</title>", "", node.astext())
            node[:] = [nodes.Text(re.sub(r"<h1>(.*?)</h1>", r"<p><strong>\1</strong></p>", text))]


def hide_source(app, name, template, context, doctree):
    """Leave out the link to the source of a page that `write_api` makes."""
    if name.startswith("site/api/"):
        context["page_source_suffix"] = ""


def copy_first_page(app, error):
    """Make the first page the one that a web server shows for the folder."""
    if not error:
        shutil.copyfile(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app):
    """Add the above to Sphinx."""
    app.add_directive("mermaid", Mermaid)
    app.add_transform(LinksToFiles)
    app.add_transform(Badges)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("config-inited", write_api)
    app.connect("autodoc-skip-member", skip_field)
    app.connect("source-read", add_to_source)
    app.connect("doctree-read", describe_pictures)
    app.connect("doctree-read", unwrap_pages)
    app.connect("html-page-context", hide_source)
    app.connect("build-finished", copy_first_page)
