"""Do the links of a Markdown text lead anywhere?"""

import re
from urllib.parse import unquote

from tools.notebooks import markdown, read

LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|(?:src|href)=["']([^"']+)""")
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2", flags=re.M | re.S)


def broken_links(text, file):
    """The relative links of a text, and those to its own headings, that lead nowhere.

    Args:
      text: Markdown, with pieces of HTML.
      file: pathlib.Path that the text comes from (Markdown or a notebook).

    Returns:
      list of targets as they are written.
    """
    targets = [markdown or html for markdown, html in LINK.findall(FENCE.sub("", text))]
    return [target for target in targets if not re.match(r"[a-z]+:", target) and not _leads_somewhere(target, file)]


def _leads_somewhere(target, file):
    path, _, anchor = unquote(target).partition("#")
    aim = (file.parent / path) if path else file
    return aim.exists() and (not anchor or aim.is_dir() or anchor in anchors(aim))


def anchors(file):
    """The anchors that GitHub gives to the headings of a file, and those set by hand."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        text = markdown(read(file))
    headings = re.findall(r"^#+ +(.+?) *#*$", FENCE.sub("", text), flags=re.M)
    return {slug(heading) for heading in headings} | set(re.findall(r"""\b(?:id|name)=["']([^"']+)""", text))


def slug(heading):
    """As GitHub does: lower case, no marks but hyphens and underscores, hyphens for spaces."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def markdown_files(root):
    """All Markdown files of the repository, those in hidden and generated folders left out."""
    skipped = {"build", "dist", "artifacts", "node_modules"}
    folders = [path for path in root.iterdir() if path.is_dir() and path.name not in skipped and path.name[0] != "."]
    files = (*root.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md")))
    return sorted(path for path in files if skipped.isdisjoint(path.relative_to(root).parts))
