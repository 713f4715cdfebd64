"""The page as one file: runs that were computed in advance, among which the widgets select."""

import json
import math
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.models import ColumnDataSource, CustomJS
from bokeh.resources import INLINE
from tqdm import tqdm

from playground import pictures
from playground.catalogue import Catalogue
from playground.learner import AGENTS, Settings
from playground.page import DEFAULTS, Page, make_slider
from playground.session import Session
from recbandits.checks import write_text

_SELECT = """
const key = [agent, rate, alpha, noise, step].map(each => each.visible ? each.value : "").join("|")
const view = JSON.parse(views.get_column(key)[0], (name, value) => value === null ? NaN : value)
for (const source of sources) source.data = view[source.name]
for (const text of texts) text.text = view[text.name]
"""


class Choices(NamedTuple):
    """The values of the sliders, as texts, and the number of seeds of each run."""

    rates: tuple[str, ...] = ("0.02", "0.1", "0.3")
    alphas: tuple[str, ...] = ("0.1", "1")
    noises: tuple[str, ...] = ("0.25", "0.5", "1")
    steps: tuple[str, ...] = ("10", "30", "100", "300", "1000")
    seeds: int = 5


def compute_views(catalogue: Catalogue, choices: Choices) -> dict[str, dict]:
    """Run every setting, and return its views by agent, exploration rate, alpha (of LinUCB alone), noise and step.

    The pictures are of one seed. Regret is the mean over all seeds up to the step, with its interval.
    """
    agents = [(name, alpha) for name in AGENTS for alpha in (choices.alphas if name == "LinUCB" else [""])]
    views = {}
    for agent, alpha in tqdm(agents, disable=None, unit="agent"):
        session = Session(catalogue, {"A": Settings(agent, alpha=float(alpha or 0))})
        for rate, noise in product(choices.rates, choices.noises):
            session.noise = float(noise)
            session.choose_user(None)
            session.restart(0)
            session.change("A", Settings(agent, float(rate), float(alpha or 0)))
            runs, of_steps = {step: [] for step in choices.steps}, {}
            for seed in range(choices.seeds):
                session.restart(seed)
                for step in choices.steps:
                    session.play(int(step) - session.interactions)
                    runs[step].append(session.runs())
                    if seed == 0:
                        of_steps[step] = pictures.view(session, "A")
            for step, view in of_steps.items():
                of_seeds = pictures.view_runs(pd.concat(runs[step]), "A")
                views["|".join([agent, rate, alpha, noise, step])] = view | of_seeds
    return views


def export(file: Path, catalogue: Catalogue, choices: Choices) -> None:
    """Write the page as one HTML file that needs no server and no network."""
    views, document = compute_views(catalogue, choices), Document()
    page = Page(catalogue, choices.rates, choices.alphas, choices.noises)
    step = make_slider("interactions", choices.steps, choices.steps[-1])
    source = ColumnDataSource({key: [_to_json(view)] for key, view in views.items()})
    for label in DEFAULTS:
        widgets = {"agent": page.agents[label], "rate": page.rates[label], "alpha": page.alphas[label]}
        widgets |= {"noise": page.noise, "step": step}
        models = {"views": source, "sources": [*page.sources[label].values()], "texts": page.texts[label]}
        for widget in widgets.values():
            widget.js_on_change("value", CustomJS(args=widgets | models, code=_SELECT))
        key = "|".join(each.value if each.visible else "" for each in widgets.values())
        page.show({label: views[key]}, "")
    page.place(document, [page.noise, step])
    values = document.template_variables | {"seeds": choices.seeds}
    write_text(file, file_html(document, INLINE, template=document.template, template_variables=values))


def _to_json(view):
    """Return a view as JSON, which has null for NaN, with numbers of four decimals."""

    def convert(values):
        return [None if isinstance(each, float) and math.isnan(each) else _round(each) for each in values]

    columns = {name: {each: convert(values) for each, values in view[name].items()} for name in pictures.COLUMNS}
    return json.dumps(columns | {name: view[name] for name in pictures.TEXTS})


def _round(value):
    return round(value, 4) if isinstance(value, float) else value
