"""The page that a run leaves behind: for each notebook a picture, its metrics and the way to the executed copy."""

import time
from html import escape
from pathlib import Path
from string import Template

from tools.notebooks import picture, title

PAGE = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))


def write(results, build, seconds):
    """Write `index.html`, which needs no other file to be looked at, into the build directory.

    Args:
      results: list of `tools.results.Result`; their copies lie under `build`.
      build: pathlib.Path.
      seconds: that the run took.
    """
    passed = sum(not result.problem for result in results)
    headline = f"{passed} of {len(results)} notebooks passed in {seconds:.0f} s · {time.strftime('%d %B %Y, %H:%M')}"
    page = PAGE.substitute(headline=headline, cards="\n".join(card(result, build) for result in results))
    (build / "index.html").write_text(page, encoding="utf-8")


def card(result, build):
    """The HTML of one notebook."""
    link = escape(result.copy.with_suffix(".html").relative_to(build).as_posix())
    heading, image = result.name, None
    if result.notebook:
        heading, image = title(result.notebook) or result.name, picture(result.notebook)
    facts = [result.name, f"{result.seconds:.1f} s", *(result.record.get(key, "") for key in ("profile", "data"))]
    facts = [fact for fact in facts if fact not in ("", "none")]
    parts = [f'<article class="{"failed" if result.problem else "passed"}">']
    if image:
        parts.append(
            f'<a class="picture" href="{link}"><img src="data:image/png;base64,{image}" alt="{escape(heading)}"></a>'
        )
    parts.append(f'<div class="text"><h2><a href="{link}">{escape(heading)}</a></h2>')
    parts.append(f'<p class="facts"><span class="state">{"failed" if result.problem else "passed"}</span>')
    parts.append("".join(f" · {escape(fact)}" for fact in facts) + "</p>")
    if result.problem:
        parts.append(f'<p class="problem">It {escape(result.problem)}</p>')
    rows = [f"<tr><td>{escape(name)}</td><td>{value:,.6g}</td></tr>" for name, value in result.metrics.items()]
    parts.append(f"<table>{''.join(rows)}</table></div></article>")
    return "\n".join(parts)
