"""The playground in a browser: its story, clicked through; who may see it; and the exported page."""

import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websocket
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.events import ButtonClick, DocumentReady
from bokeh.models import Button, MultiChoice, RadioButtonGroup
from bokeh.resources import INLINE

from playground.catalogue import CANDIDATES, Catalogue
from playground.export import Choices, export
from playground.page import LivePage
from playground.pictures import POINTS
from recbandits.data import movielens, synthetic
from tools.lock import ROOT

COLUMN = """([name, column]) => [...Bokeh.documents[0]._all_models.values()]
  .filter(each => each.name == name && each.get_column).map(each => Array.from(each.get_column(column)))"""

PRESS = """[...Bokeh.documents[0]._all_models.values()].filter(each => each.type === "RadioButtonGroup").map(each => {
  each.active = 3
  return Bokeh.index.find_one(each).shadow_el.querySelectorAll("button")[3].ariaPressed
})"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Address of a playground of the synthetic set in a process of its own, which ends by Ctrl-C."""
    directory = tmp_path_factory.mktemp("playground")
    environment = {name: value for name, value in os.environ.items() if name != movielens.DIRECTORY_VARIABLE}
    environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # as without a network
    environment |= {"RECBANDITS_CACHE": str(directory), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with open(directory / "errors", "w+") as errors:
        command = [sys.executable, "-m", "playground"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        lines = iter(process.stdout.readline, "")
        address = next((line.split()[1] for line in lines if line.startswith("PLAYGROUND: ")), None)
        assert address, Path(errors.name).read_text()
        yield address
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert process.returncode == 0, Path(errors.name).read_text()


@pytest.fixture
def page(browser):
    """A page of the browser on which no error may happen; `page.hosts` are those of its requests."""
    context = browser.new_context(viewport={"width": 1280, "height": 2150})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.hosts, problems = set(), []
    page.on("request", lambda request: page.hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert problems == []


def status(page, count):
    """Wait until the page shows a number of interactions, and return the sentence."""
    sentence = page.get_by_text(re.compile(rf"^\s*Interactions: {count:,}\. Next: "))
    sentence.wait_for()
    return sentence.inner_text()


def assert_it_fits_a_telephone(page):
    """Nothing is wider than 390 px."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


def answer(url, headers=None, path=None):
    """Return status and headers of the answer to a request."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=30)
    connection.request("GET", path or f"{parts.path}?{parts.query}", headers=headers or {})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, response.headers, body


def external(html):
    """Return the addresses of other hosts that elements of a page load or link to."""
    addresses, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: addresses.extend(value or "" for _, value in attributes)
    parser.feed(html)
    return [address for address in addresses if re.match(r"(\w+:)?//", address)]


def test_a_person_rates_replays_and_compares_agents(url, page):
    page.goto(url)
    status(page, 0)
    for propensities in page.evaluate(COLUMN, ["candidates", "propensity"]):
        assert len(propensities) == CANDIDATES
        assert sum(propensities) == pytest.approx(1)

    shown = [text.partition(" with ")[0] for text in page.get_by_text(re.compile(r"^\s*Shows ")).all_inner_texts()]
    page.get_by_text("4 ★").nth(0).click()
    if len({*shown}) > 1:  # one rating is enough where both agents show the same movie
        page.get_by_text("Now rate the movie of agent B.").wait_for()
        page.get_by_text("4 ★").nth(1).click()
    status(page, 1)
    assert page.get_by_role("cell", name="4.00").count() == 2

    page.get_by_role("button", name="Replay").click()
    status(page, 1001)
    curves = page.evaluate(COLUMN, ["regret", "mean"])
    assert [len(curve) for curve in curves] == [POINTS, POINTS]
    (ROOT / "build").mkdir(exist_ok=True)
    page.screenshot(path=ROOT / "build" / "playground.png")  # docs has copies of both
    page.screenshot(path=ROOT / "build" / "playground-agents.png", clip={"x": 0, "y": 0, "width": 1280, "height": 1006})

    page.get_by_label("user", exact=True).select_option(index=5)
    page.get_by_text("Interactions: 1,001. Next: user 5,").wait_for()
    page.get_by_text("Describe a new user").click()
    for box in (0, 1):
        page.locator("input.choices__input").nth(box).click()
        page.locator(".choices__list--dropdown .choices__item").filter(visible=True).nth(3 * box).click()
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Choose this user").click()
    page.get_by_text("Next: user 944, described by you").wait_for()
    page.get_by_role("button", name="Let the simulated user rate").click()
    status(page, 1002)

    summaries = page.get_by_text("Expected regret per interaction")
    changes = {  # of the noise, which both agents meet, and then of agent A alone
        "noise": lambda: page.get_by_role("slider").nth(0).press("End"),
        "agent": lambda: page.get_by_label("agent", exact=True).first.select_option("reward network"),
        "exploration rate": lambda: page.get_by_role("slider").nth(1).press("End"),
    }
    for name, change in changes.items():
        first, second = summaries.all_inner_texts()
        change()
        page.get_by_text(first).wait_for(state="detached")
        status(page, 1002)
        assert (summaries.nth(1).inner_text() == second) == (name != "noise")

    assert_it_fits_a_telephone(page)
    assert page.hosts == {urlsplit(url).netloc}


def test_widgets_and_pictures_have_names_and_the_status_is_read_out(url, page):
    page.goto(url)
    status(page, 0)
    assert page.get_by_role("status").get_by_text("Interactions: 0.").count() == 1
    sliders = ["exploration rate", "alpha, confidence widths"]
    pictures = ["predicted rewards", "propensities", "off-policy estimates"]
    for names, role in ((sliders, "slider"), (pictures, "img")):
        for name in (f"agent {label}: {name}" for label in "AB" for name in names):
            assert page.get_by_role(role, name=name, exact=True, include_hidden=True).count() == 1, name
    assert page.get_by_role("slider", name="noise").count() == 1
    assert page.get_by_role("img", name=re.compile("(regret|posteriors) of both agents")).count() == 2
    rating = page.get_by_role("button", name="agent B: 4 of 5 stars", exact=True)
    assert rating.get_attribute("aria-pressed") == "false"
    assert {layer.get_attribute("tabindex") for layer in page.locator(".bk-events").all()} == {"-1"}
    for name, background in (("Replay", "rgb(47, 133, 90)"), ("Let the", "rgb(43, 108, 176)")):  # contrast above 4.5
        button = page.get_by_role("button", name=name)
        assert button.evaluate("each => getComputedStyle(each).backgroundColor") == background
    assert page.evaluate(PRESS) == ["true", "true"]


def test_a_title_with_html_is_text_in_the_lists_of_movies(page):
    catalogue, title = Catalogue(synthetic.generate()), '<img src=x onerror="window.injected = true"> & Sons'
    catalogue.titles.iloc[0] = title
    document = Document()
    LivePage(document, catalogue)
    for choice in document.select({"type": MultiChoice}):
        page.set_content(file_html(choice, INLINE))
        page.locator("input.choices__input").click()
        movie = page.locator(".choices__list--dropdown .choices__item").first
        movie.wait_for()
        assert movie.inner_text().startswith(f"{title} · ")
        assert not page.evaluate("window.injected")


def test_a_click_while_a_step_is_computed_changes_nothing():
    """The first rating would otherwise be followed by one of the next movie, which no user has seen."""
    document = Document()
    live = LivePage(document, Catalogue(synthetic.generate()))
    document.callbacks.trigger_event(DocumentReady())
    compute(document)
    groups, buttons = ([*document.select({"type": kind})] for kind in (RadioButtonGroup, Button))
    replay = next(button for button in buttons if button.label.startswith("Replay"))
    for group in groups:  # one rating is enough where both agents show the same movie
        group.active = 3
    assert all(widget.disabled for widget in (*groups, *buttons))
    groups[0].active = 0
    replay._trigger_event(ButtonClick(replay))
    assert compute(document) == 1
    assert live.status.text.startswith("Interactions: <b>1</b>.")
    assert "<td>4.00</td>" in live.texts["A"][2].text
    assert [(group.active, group.disabled) for group in groups] == 2 * [(None, False)]
    assert not replay.disabled


def compute(document):
    """Run what waits for its time, as the server does, and return the number of steps."""
    callbacks = document.session_callbacks
    for callback in callbacks:
        document.remove_timeout_callback(callback)
        callback.callback()
    return len(callbacks)


def test_the_page_needs_the_token(url):
    assert answer(url)[0] == 200
    for path in ("/", "/?token=", "/?token=x", "/autoload.js?bokeh-autoload-element=x", "/metadata"):
        assert answer(url, path=path)[0] == 403


def test_the_cookie_of_the_page_is_enough(url):
    cookie = answer(url)[1]["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert answer(url, {"Cookie": cookie.partition(";")[0]}, "/")[0] == 200


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Host": "localhost"}, {"Origin": "http://evil.example"}])
def test_another_host_or_origin_is_refused(url, header):
    assert answer(url, header)[0] == 403


def connect(url, **options):
    """Open the websocket of a session with its own token, as Bokeh does; `options` replace headers."""
    _, headers, body = answer(url)
    token = re.search(r'"token":"([^"]+)"', body).group(1)
    parts = urlsplit(url)
    options = {"origin": f"http://{parts.netloc}", "cookie": headers["Set-Cookie"].partition(";")[0]} | options
    return websocket.create_connection(f"ws://{parts.netloc}/ws", subprotocols=["bokeh", token], timeout=30, **options)


def test_the_websocket_opens_for_the_page(url):
    connection = connect(url)
    assert "ACK" in connection.recv()
    connection.close()


@pytest.mark.parametrize(
    "changed",
    [{"cookie": None}, {"cookie": "playground=x"}, {"origin": "http://evil.example"}, {"host": "evil.example"}],
)
def test_the_websocket_is_refused_without_the_cookie_or_from_elsewhere(url, changed):
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        connect(url, **changed)


def test_the_page_names_no_other_address(url):
    assert external(answer(url)[2]) == []


def test_the_exported_page_selects_among_its_runs_without_a_server(tmp_path, page):
    file = tmp_path / "playground.html"
    choices = Choices(rates=("0.1", "0.3"), alphas=("1",), noises=("0.5",), steps=("10", "50"), seeds=2)
    export(file, Catalogue(synthetic.generate()), choices)
    assert file.stat().st_size < 5e6
    assert external(file.read_text(encoding="utf-8")) == []
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    summary = page.get_by_text("Expected regret per interaction")
    summary.first.wait_for()
    first, second = summary.all_inner_texts()
    assert re.search(r"\d\.\d{3} \(-?\d\.\d{3} to \d\.\d{3}\) rating points", first)
    assert first != second
    page.get_by_label("agent", exact=True).nth(1).select_option("LinUCB")
    page.get_by_text(second).wait_for(state="detached")
    assert summary.first.inner_text() == first
    assert page.get_by_role("cell", name="50", exact=True).count() == 2
    page.get_by_role("slider", name="interactions").press("Home")  # from 50 to 10
    page.get_by_role("cell", name="10", exact=True).nth(1).wait_for()
    assert page.get_by_role("cell", name="50", exact=True).count() == 0
    assert [max(curve) for curve in page.evaluate(COLUMN, ["regret", "interactions"])] == [10, 10]
    assert summary.first.inner_text() != first
    filters = []
    for scheme in ("light", "dark"):  # by inverted lightness
        page.emulate_media(color_scheme=scheme)
        filters.append(page.evaluate("getComputedStyle(document.documentElement).filter").partition("(")[0])
    assert filters == ["none", "invert"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_it_fits_a_telephone(page)
    assert errors == []
    assert page.hosts == {""}
