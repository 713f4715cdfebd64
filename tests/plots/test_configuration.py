"""The picture of the resource names shows the names, whole."""

from recbandits.config import Config
from recbandits.plots.configuration import coloured_parts, resource_names

CONFIG = Config(project="movie-lab-42", region="europe-west4", prefix="team-a", version="v2")
COLOURS = {"project": "p", "region": "r", "prefix": "x", "version": "v"}


def test_each_setting_gets_its_colour():
    image = coloured_parts(CONFIG, CONFIG.image("train"), COLOURS)
    assert "".join(text for text, _ in image) == CONFIG.image("train")
    assert [(text, colour) for text, colour in image if len(colour) == 1] == [
        ("europe-west4", "r"),
        ("movie-lab-42", "p"),
        ("team-a", "x"),
        ("v2", "v"),
        ("v2", "v"),
    ]
    assert coloured_parts(CONFIG, CONFIG.dataset, COLOURS)[0] == ("team_a", "x")


def test_the_picture_holds_every_name():
    (axes,) = resource_names(CONFIG).axes
    written = "".join(text.get_text() for text in axes.texts)
    for name in (CONFIG.bucket, CONFIG.dataset, CONFIG.image("train"), CONFIG.service_account, CONFIG.endpoint):
        assert name in written
