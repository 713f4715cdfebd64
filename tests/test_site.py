"""The site: built whole, its links and pictures followed, and every page opened in a browser, wide and narrow."""

import functools
import re
import sys
import threading
import tomllib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from tests.commands import run
from tests.test_readme import track
from tools.lock import ROOT
from tools.notebooks import find_notebooks

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
SCREENSHOTS = ROOT / "build" / "site-screenshots"
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SHOWN = ["README", "01-online-bandit-simulation/01a-train-bandit-mf-env-simulation", "learning/agents", "docs/serving"]

# Problems of the page that is open. Prices such as US$ 5 are no formulas.
PROBLEMS = r"""() => {
  const { images, documentElement: root } = document;
  const text = (document.querySelector("article") ?? document.body).cloneNode(true);
  text.querySelectorAll("pre, code, math, script, style").forEach(node => node.remove());
  return [
    ...[...images].filter(image => !image.complete || !image.naturalWidth).map(image => `picture ${image.src}`),
    ...[...root.querySelectorAll("math")].filter(math => !math.clientWidth).map(math => `formula ${math.textContent}`),
    ...(text.textContent.match(/\$[^$\s][^$\n]*\$|\\[(\[].*/g) || []),
    ...(root.scrollWidth > innerWidth ? [`${root.scrollWidth} pixels wide`] : []),
  ];
}"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and writes no log."""

    def log_message(self, *arguments):
        """Write nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `make site` does, where a warning is an error; the playground has tests of its own."""
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-c", "site", "-d", str(folder / "doctrees")]
    run(sys.executable, "-m", "sphinx", *options, ".", str(folder / "html"), cwd=ROOT)
    (folder / "html" / "playground.html").write_text('<link rel="icon" href="data:,">')  # to which a page links
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    """The parsed pages by their paths."""
    files = sorted(site.rglob("*.html"))
    return {
        file.relative_to(site).as_posix(): BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
        for file in files
    }


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def html(path):
    """Return the path of the page of a file of the repository."""
    return path.relative_to(ROOT).with_suffix(".html").as_posix()


def test_the_first_page_lists_the_notebooks_in_the_tracks_of_the_readme_and_all_pages(pages):
    captions = pages["index.html"].select(".sidebar-tree .caption")
    listed = {
        caption.text: [link["href"] for link in caption.find_next_sibling("ul").select("a")] for caption in captions
    }
    for name in ("Bandits", "Operations"):
        assert listed[name] == [path.replace(".ipynb", ".html") for _, path, _ in track(name)]
    texts = [path for folder in ("learning", "docs") for path in (ROOT / folder).glob("*.md")]
    expected = {html(path) for path in [*find_notebooks(), *texts, *ROOT.glob("0*/**/README.md")]}
    assert expected <= {link for links in listed.values() for link in links}
    assert len(listed["Package"]) > 10


def test_the_package_is_documented_by_its_docstrings(pages):
    text = pages["site/api/evaluation.html"].select_one("article").text
    assert "recbandits.evaluation.Estimate(" in text
    assert "recbandits.evaluation.ranking_metrics.ndcg(" in text
    assert "Alias for field" not in pages["site/api/environments.html"].text


def test_links_between_pages_lead_to_a_page_and_a_heading(pages, site):
    anchors = {
        path: {name for tag in page.find_all(True) for name in (tag.get("id"), tag.get("name")) if name}
        for path, page in pages.items()
    }
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.find_all("a", href=True):
            parts = urlsplit(urljoin(path, link["href"]))
            if parts.scheme:
                continue
            followed += 1
            aim = unquote(parts.path) or path
            if not (site / aim).is_file() or (parts.fragment and unquote(parts.fragment) not in anchors[aim]):
                broken.append((path, link["href"]))
    assert broken == []
    assert followed > 3000


def test_links_to_files_lead_to_the_repository(pages):
    links = {link["href"] for page in pages.values() for link in page.select("a[href]")}
    paths = {link.split("/main/")[1] for link in links if link.startswith(f"{REPOSITORY}/")}
    assert {"LICENSE", "docker/Dockerfile", "src/recbandits/data/data_file.py"} <= paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_nothing_is_loaded_from_another_host(pages, site):
    for path, page in pages.items():
        loaded = [tag.get("src") or tag.get("href") for tag in page.select("script[src], link[href], [src]")]
        assert [target for target in loaded if re.match(r"(https?:)?//", target)] == [], path
    styles = [file.read_text(encoding="utf-8") for file in site.rglob("*.css")]
    assert re.findall(r"(?:@import|url\()[\s\"']*(?:https?:)?//[^)]*", "".join(styles)) == []


def test_the_page_of_a_notebook_has_a_link_to_the_notebook(pages):
    for path in find_notebooks():
        (link,) = pages[html(path)].select(".view-this-page a")
        assert link["href"] == f"{REPOSITORY}/blob/main/{path.relative_to(ROOT).as_posix()}"


def test_pictures_have_texts_and_a_page_has_one_heading_of_the_first_level(pages):
    for path, page in pages.items():
        texts = [image.get("alt", "") for image in page.select("article img")]
        assert [text for text in texts if not text or re.search(r"_images/|\.(png|svg)$", text)] == [], path
        assert len(page.select("article h1")) <= 1, path
        assert page.select("body title:not(svg title)") == [], path
    alt = {image["alt"] for image in pages["00-movielens-data-prep.html"].select("article img")}
    assert all(text.startswith("Picture of the section ") for text in alt)


def test_each_problem_of_a_page_is_found(browser):
    page = browser.new_page(viewport=NARROW)
    wide, missing = '<div style="width: 500px">$x^2$ and US$ 5</div>', '<img src="missing.png">'
    page.set_content(rf"<article>{wide}{missing}<math></math>\(y\) <code>$PATH$</code></article>")
    found = page.evaluate(PROBLEMS)
    page.close()
    assert [problem.split()[0] for problem in found] == ["picture", "formula", "$x^2$", r"\(y\)", "508"]


def test_every_page_opens_wide_and_narrow_without_a_problem(pages, address, browser):
    """No error in the console, no missing picture, no formula left as text, no horizontal scrolling."""
    page, found = browser.new_page(), []
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(request.url))
    problems, formulas = {}, 0
    for path in pages:
        for size in (WIDE, NARROW):
            page.set_viewport_size(size)
            if size is WIDE:
                page.goto(address + path)
            found += page.evaluate(PROBLEMS)
        formulas += page.locator("math").count()
        if found:
            problems[path] = [*found]
            found.clear()
    page.close()
    assert problems == {}
    assert formulas > 150


def test_a_picture_of_the_page_is_light_or_dark_as_the_system_and_wide_or_narrow(address, browser):
    """The pictures go to build/site-screenshots, for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    backgrounds = set()
    for scheme in ("light", "dark"):
        for width, size in {"wide": WIDE, "narrow": NARROW}.items():
            page = browser.new_page(viewport=size, color_scheme=scheme)
            for name in SHOWN:
                page.goto(f"{address}{name}.html")
                page.screenshot(path=SCREENSHOTS / f"{name.split('/')[-1]}-{scheme}-{width}.png")
            backgrounds.add((scheme, page.evaluate("getComputedStyle(document.body).backgroundColor")))
            page.close()
    assert len({colour for _, colour in backgrounds}) == len(backgrounds) == 2


def test_the_search_finds_a_word_and_code_can_be_copied(address, browser):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{address}search.html?q=propensity")
    page.locator("#search-results .search li a").nth(10).wait_for()
    page.goto(f"{address}docs/installation.html")
    block = page.locator(".highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    assert page.evaluate("navigator.clipboard.readText()").strip() == block.locator("pre").inner_text().strip()
    context.close()
