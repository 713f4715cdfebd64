"""The page: widgets around the pictures, and what they do to a session. The export has the same page."""

from functools import partial
from html import escape
from pathlib import Path

from bokeh.document import Document
from bokeh.events import DocumentReady
from bokeh.layouts import column, row
from bokeh.models import Button, CategoricalSlider, CustomJS, Div, MultiChoice, RadioButtonGroup, Select

from playground import pictures
from playground.catalogue import CANDIDATES, Catalogue
from playground.learner import AGENTS, Settings
from playground.session import FEWEST, Session

DEFAULTS = {"A": Settings(), "B": Settings("linear model", exploration_rate=0.3)}
RATES = ("0", "0.01", "0.02", "0.05", "0.1", "0.2", "0.3", "0.5", "1")
ALPHAS = ("0", "0.1", "0.25", "0.5", "1", "2", "5")
NOISES = ("0", "0.25", "0.5", "1", "2")
REPLAY = 1000
_BUTTON = (  # white on Bokeh's own green and blue has a contrast below 4.5
    ".bk-btn-success,.bk-btn-success:hover{background-color:#2f855a}"
    ".bk-btn-primary,.bk-btn-primary:hover{background-color:#2b6cb0} .bk-btn:focus-visible{outline:2px solid #1f2933}"
)
_WIDE = {"sizing_mode": "stretch_width"}
_TABLE = (
    ":host{font-size:13px;overflow-x:auto} table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:3px 8px 3px 0;border-bottom:1px solid #e1e6ec} th{color:#52606d;font-weight:600}"
    ".bk-clearfix{width:100%}"
)


class Page:
    """The widgets and pictures that the live page and the export share.

    Args:
      catalogue: of movies and users.
      rates: exploration rates to choose from, as texts; likewise `alphas` and `noises`.
    """

    def __init__(self, catalogue: Catalogue, rates=RATES, alphas=ALPHAS, noises=NOISES):
        self.catalogue = catalogue
        self.sources = {label: pictures.make_sources() for label in DEFAULTS}
        self.texts = {label: [_text(name) for name in pictures.TEXTS] for label in DEFAULTS}
        self.status = _text("status")
        self.status.tags = ["status"]  # a role
        self.noise = make_slider("noise, standard deviation [rating points]", noises, "0.5", width=250)
        self.agents, self.rates, self.alphas = {}, {}, {}
        for label, settings in DEFAULTS.items():
            self.agents[label] = Select(title="agent", value=settings.agent, options=list(AGENTS), width=130)
            self.rates[label] = make_slider("exploration rate", rates, f"{settings.exploration_rate:g}", agent=label)
            self.alphas[label] = make_slider("alpha, confidence widths", alphas, f"{settings.alpha:g}", agent=label)
            self.alphas[label].visible = settings.agent == "LinUCB"
            code = "alpha.visible = this.value === 'LinUCB'"
            self.agents[label].js_on_change("value", CustomJS(args={"alpha": self.alphas[label]}, code=code))

    def show(self, views: dict[str, dict], status: str) -> None:
        """Show the views of agents, by label."""
        self.status.text = status
        for label, view in views.items():
            for name, source in self.sources[label].items():
                source.data = view[name]
            for text in self.texts[label]:
                text.text = view[text.name]

    def place(self, document: Document, controls, ratings=None, description=None) -> None:
        """Put the page into a document; what the export lacks is None."""
        template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        document.template, document.title = template, "RecBandits playground"
        values = {"source": self.catalogue.source, "candidates": CANDIDATES, "fewest": FEWEST}
        document.template_variables.update(values, is_static=description is None)
        roots = [_line(*controls, name="controls")]
        if description is not None:
            roots += [column(*description, name="description", **_WIDE), self.status]
        for label in DEFAULTS:
            roots.append(_line(self.agents[label], self.rates[label], self.alphas[label], name=f"settings_{label}"))
            candidates = row(*pictures.draw_candidates(self.sources[label]["candidates"], label), **_WIDE)
            (shown, *others), rating = self.texts[label], [] if ratings is None else [ratings[label]]
            roots.append(column(shown, *rating, candidates, name=f"candidates_{label}", **_WIDE))
            roots.append(pictures.draw_estimates(self.sources[label]["estimates"], label))
            roots += [column(text, name=f"{text.name}_{label}", **_WIDE) for text in others]
        coefficients = self.catalogue.coefficients()
        roots += [pictures.draw_regret(self.sources), pictures.draw_posterior(self.sources, coefficients)]
        for root in roots:
            document.add_root(root)
        tagged = [model for model in document.models if model.tags]
        code = Path(__file__).with_name("names.js").read_text(encoding="utf-8")
        document.js_on_event(DocumentReady, CustomJS(args={"models": tagged}, code=code))


class LivePage(Page):
    """The page on which a person rates: one session for each document.

    Args:
      document: of the browser's session.
      catalogue: of movies and users.
    """

    def __init__(self, document: Document, catalogue: Catalogue):
        super().__init__(catalogue)
        self._document, self._session, self._given, self._waiting = document, None, {}, 0
        stars = [f"{number} ★" for number in range(1, 6)]
        style = {"labels": stars, "stylesheets": [_BUTTON], **_WIDE}
        self._ratings = {label: RadioButtonGroup(tags=[f"agent {label}"], **style) for label in DEFAULTS}
        self._user = Select(title="user", width=240)
        self._list_users()
        style = {"stylesheets": [_BUTTON]}
        answer = Button(label="Let the simulated user rate", button_type="primary", width=190, **style)
        replay = Button(label=f"Replay {REPLAY:,} interactions", button_type="success", width=180, **style)
        again = Button(label="Start again with other users", width=190, **style)
        labels = catalogue.titles + " · " + catalogue.genres
        movies = [(str(movie), escape(label)) for movie, label in labels.items()]  # MultiChoice takes them for HTML
        titles = "movies that the user gives 5 stars", "movies that the user gives 1 star"
        self._liked, self._disliked = (MultiChoice(title=title, options=movies, **_WIDE) for title in titles)
        described = Button(label="Choose this user", width=220, **style)
        self._buttons = {
            answer: lambda: self._session.play(),
            replay: lambda: self._session.play(REPLAY),
            again: lambda: self._session.restart(self._session.seed + 1),
            described: self._describe,
        }
        for button, action in self._buttons.items():
            button.on_click(partial(self._press, action))
        self._follow(self._user, "value", self._choose_user)
        self._follow(self.noise, "value_throttled", self._change_noise)
        for label, group in self._ratings.items():
            group.on_change("active", partial(self._rate, label))
            self._follow(self.agents[label], "value", partial(self._change, label))
            for slider in (self.rates[label], self.alphas[label]):
                self._follow(slider, "value_throttled", partial(self._change, label))
        controls, description = (
            [self._user, self.noise, answer, replay, again],
            [self._liked, self._disliked, described],
        )
        self.place(document, controls, self._ratings, description)  # only now, or Bokeh would miss the callbacks
        document.on_event(DocumentReady, lambda event: self._do(self._start))

    def _follow(self, widget, name, action):
        widget.on_change(name, lambda attribute, old, new: self._do(action))

    def _press(self, action):
        if not self._waiting:  # a click may have been under way when the buttons were disabled
            self._do(action)

    def _do(self, action):
        """Say so, act, and show the session; until then no button can be pressed and no movie rated."""

        def act():
            action()
            self._given = {}
            self._waiting -= 1
            for group in self._ratings.values():
                group.active = None
            self._disable(self._waiting > 0)
            views = {label: pictures.view(self._session, label) for label in DEFAULTS}
            count, user = self._session.interactions, self._session.next_user()
            advice = "Rate the movie of each agent below, or let the simulated user rate."
            self.show(views, f"Interactions: <b>{count:,}</b>. Next: {escape(user)}. {advice}")

        self._waiting += 1
        self._disable(True)
        self.status.text = "Computing …"
        self._document.add_timeout_callback(act, 30)  # milliseconds, in which the page gets the status

    def _disable(self, disabled):
        for widget in (*self._ratings.values(), *self._buttons):
            widget.disabled = disabled

    def _start(self):
        self._session = Session(self.catalogue, {label: self._settings(label) for label in DEFAULTS})

    def _settings(self, label):
        rate, alpha = float(self.rates[label].value), float(self.alphas[label].value)
        return Settings(self.agents[label].value, rate, alpha)

    def _rate(self, label, attribute, old, new):
        """Keep a rating; the agents learn when both movies are rated, or both agents show the same one."""
        if new is None or self._waiting or self._session is None:
            return
        shown = {each: self._session.candidates(each)["is_shown"].argmax() for each in DEFAULTS}
        self._given |= {each: new + 1.0 for each in DEFAULTS if shown[each] == shown[label]}
        if self._given.keys() == DEFAULTS.keys():
            ratings = self._given
            self._do(lambda: self._session.play(1, ratings))
        else:
            (other,) = DEFAULTS.keys() - self._given
            self.status.text = f"Now rate the movie of agent {other}."

    def _change(self, label):
        self._session.change(label, self._settings(label))

    def _choose_user(self):
        self._session.choose_user(int(self._user.value) if self._user.value else None)

    def _change_noise(self):
        self._session.change_noise(float(self.noise.value))

    def _describe(self):
        ratings = dict.fromkeys(map(int, self._disliked.value), 1.0) | dict.fromkeys(map(int, self._liked.value), 5.0)
        if ratings:
            self._session.catalogue, user_id = self._session.catalogue.with_user(ratings)
            self.catalogue = self._session.catalogue
            self._list_users()
            self._user.value = str(user_id)

    def _list_users(self):
        users = self.catalogue.users
        self._user.options = [("", "a random user each time"), *zip(map(str, users.index), users, strict=True)]


def make_slider(title: str, values: tuple[str, ...], value: str, width: int = 190, agent="") -> CategoricalSlider:
    """Make a slider over some values, for one agent or for both; the width in pixels fits its title."""
    tags = [f"agent {agent}: {title}" if agent else title]
    return CategoricalSlider(title=title, categories=list(values), value=value, width=width, tags=tags)


def _text(name):
    return Div(name=name, stylesheets=[_TABLE], disable_math=True, **_WIDE)


def _line(*parts, name):
    """Put parts beside each other, or below where the page is narrow."""
    return row(*parts, name=name, styles={"flex-wrap": "wrap", "gap": "6px 18px", "align-items": "end"}, **_WIDE)
