"""Synthetic ratings with the shape of MovieLens 100K and invented users, movies and preferences.

Counts and shares follow those published for MovieLens 100K: 943 users, 1682 movies, 100,000 ratings, at least 20 of
each user, a long tail of movies, 21 occupations, 19 genres, seven months from September 1997. Preferences are of low
rank and as strong as rank-20 ALS estimates them in the real set; popular movies have better ratings; factors of movies
depend on their genres, factors of users on age and gender.
"""

import itertools

import numpy as np
import pandas as pd

from recbandits.data.tables import GENRES, STARS, MovieLens

SOURCE = "synthetic, shaped like MovieLens 100K"
USERS, MOVIES, RATINGS = 943, 1682, 100_000

_RATING_SHARES = (0.0611, 0.1137, 0.27145, 0.34174, 0.21201)
# Quantiles in MovieLens 100K, at these shares of its users or movies.
_SHARES = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
_ACTIVITY = (20, 21, 23, 33, 65, 148, 244, 311, 443, 737)
_POPULARITY = (1, 1, 2, 6, 27, 80, 169, 230, 369, 583)
_AGE = (7, 18, 20, 25, 31, 43, 51, 56, 63, 73)
_YEAR = (1922, 1951, 1967, 1992, 1995, 1996, 1997, 1997, 1998, 1998)
_START, _END = 874_724_710, 893_286_638
_MEN = 670
# Occupation: (users, typical age).
_OCCUPATIONS = {
    "administrator": (79, 37), "artist": (28, 30), "doctor": (7, 45), "educator": (95, 42), "engineer": (67, 36),
    "entertainment": (18, 25), "executive": (32, 38), "healthcare": (16, 44), "homemaker": (7, 32), "lawyer": (12, 34),
    "librarian": (51, 39), "marketing": (26, 36), "none": (9, 26), "other": (105, 32), "programmer": (66, 30),
    "retired": (14, 63), "salesman": (12, 34), "scientist": (31, 37), "student": (196, 21), "technician": (27, 30),
    "writer": (45, 36),
}  # fmt: skip
# Movies of each genre but the first, "unknown", and shares of movies with 1, 2, ... genres.
_GENRE_MOVIES = (251, 135, 42, 122, 505, 109, 50, 725, 22, 24, 92, 56, 61, 247, 101, 251, 71, 27)
_GENRES_A_MOVIE = (0.495, 0.338, 0.128, 0.030, 0.007, 0.002)
_SHAPES = ("The {} of {}", "The {} in {}", "A {} for {}", "The Last {} of {}", "The {} and {}", "No {} from {}")
_THINGS = (
    "Lantern", "Orchard", "Letter", "Winter", "Bridge", "Clockmaker", "Song", "Harbour", "Garden", "Promise", "Mirror",
    "Train", "Summer", "Island", "Secret", "Voyage", "Kitchen", "Detective", "Circus", "Shadow", "Balloon", "Wedding",
)  # fmt: skip
_SYLLABLES = (
    ("Vel", "Tar", "Os", "Quin", "Bra", "Il", "Mor", "Zan", "Ked", "Lu", "Fen", "Har"),
    ("mo", "la", "ri", "va", "du", "ne"),
    ("ra", "nis", "th", "dor", "len", "ka"),
)
_RANK = 12
# Standard deviations of the components of a rating before it is rounded to stars.
_USER_BIAS, _MOVIE_BIAS, _MATCH, _NOISE = 0.44, 0.58, 0.38, 0.78


def generate(seed: int = 42) -> MovieLens:
    """Generate 100,000 ratings of distinct pairs, at least one of every movie; the same seed gives the same set."""
    rng = np.random.default_rng(seed)
    users, movies = _make_users(rng), _make_movies(rng)
    user_factors, movie_factors = _draw_factors(rng, users, movies)
    popularity = _draw_popularity(rng)
    affinity = user_factors @ movie_factors.T
    user, movie = _draw_pairs(rng, _draw_counts(_ACTIVITY, USERS, rng), popularity, affinity)
    user_bias = rng.normal(scale=_USER_BIAS, size=USERS)
    # quality of variance 1, correlated with log popularity, saturated as in MovieLens
    quality = np.tanh(_standardise(0.8 * _standardise(np.log(popularity)) + rng.normal(size=MOVIES)))
    score = user_bias[user] + _MOVIE_BIAS * _standardise(quality)[movie] + _MATCH * affinity[user, movie]
    score += rng.normal(scale=_NOISE, size=RATINGS)
    bounds = np.quantile(score, np.cumsum(_RATING_SHARES)[:-1])  # each number of stars has its published share
    ratings = pd.DataFrame(
        {
            "user_id": users.index.to_numpy()[user],
            "movie_id": movies.index.to_numpy()[movie],
            "rating": np.asarray(STARS, float)[np.searchsorted(bounds, score)],
            "time": pd.to_datetime(_draw_times(rng, user), unit="s", utc=True),
        }
    )
    return MovieLens(ratings.sample(frac=1, random_state=rng).reset_index(drop=True), users, movies, SOURCE)


def _interpolate_quantiles(values, shares):
    """Return the values of a distribution at some shares, geometric between the given ones."""
    return np.exp(np.interp(shares, _SHARES, np.log(values)))


def _draw_counts(values, n, rng):
    """Return integers [n] in random order with those quantiles and the sum RATINGS."""
    count = np.rint(_interpolate_quantiles(values, np.linspace(0, 1, n))).astype(int)
    while short := RATINGS - count.sum():
        inner = np.flatnonzero((count > values[0] + 1) & (count < 0.9 * values[-1]))
        chosen = rng.choice(inner, size=min(abs(short), len(inner)), replace=False)
        count[chosen] += np.sign(short)
    return rng.permutation(count)


def _draw_popularity(rng):
    """Draw a number of ratings for each movie [MOVIES]; the first ids are mostly popular, as in MovieLens."""
    count = np.sort(_draw_counts(_POPULARITY, MOVIES, rng))[::-1]
    popularity = np.empty(MOVIES, int)
    popularity[np.argsort(np.arange(MOVIES) + rng.normal(scale=300, size=MOVIES))] = count
    return popularity


def _draw_pairs(rng, activity, popularity, affinity):
    """Draw int arrays [RATINGS] of user and movie rows, without repetition.

    Each user rates the movies of the highest appeal: popularity, a little affinity, and Gumbel noise, which makes it a
    draw without replacement. The popularity is tuned until the movies have their numbers of ratings; a movie that still
    has none replaces the most popular one of a random user.
    """
    appeal = 0.3 * affinity + rng.gumbel(size=affinity.shape)
    log_weight = np.log(popularity)
    for _ in range(15):
        rank = np.argsort(np.argsort(-(appeal + log_weight), axis=1), axis=1)
        chosen = rank < activity[:, None]
        log_weight = log_weight + np.log(popularity + 0.5) - np.log(chosen.sum(axis=0) + 0.5)
    for movie in np.flatnonzero(~chosen.any(axis=0)):
        user = rng.integers(USERS)
        count = np.where(chosen[user], chosen.sum(axis=0), 0)
        chosen[user, [movie, np.argmax(count)]] = True, False
    return np.nonzero(chosen)


def _draw_factors(rng, users, movies):
    """Draw factors of users [USERS, _RANK] and movies [MOVIES, _RANK], products of variance 1, in falling strength."""
    strength = 0.75 ** np.arange(_RANK)
    genres = movies[list(GENRES)].to_numpy(float)
    movie = _standardise(genres @ rng.normal(size=(len(GENRES), _RANK))) + 0.7 * rng.normal(size=(MOVIES, _RANK))
    demographics = np.column_stack([users["age"], users["gender"] == "F"]).astype(float)
    user = 0.4 * _standardise(demographics) @ rng.normal(size=(2, _RANK)) + rng.normal(size=(USERS, _RANK))
    return _standardise(user) * strength / np.linalg.norm(strength), _standardise(movie)


def _draw_times(rng, user):
    """Draw Unix seconds [n]: half of the users rate all their movies within an hour, a quarter over days or months."""
    span = np.exp(np.interp(rng.random(USERS), [0, 0.25, 0.5, 0.75, 1], np.log([120, 1e3, 3e3, 7e5, 1.8e7])))
    begin = _START + rng.random(USERS) * (_END - _START - span)
    return (begin[user] + rng.beta(0.5, 0.5, size=len(user)) * span[user]).astype("int64")


def _make_users(rng):
    """Make users whose occupations fit their ages."""
    age = np.rint(_interpolate_quantiles(_AGE, np.sort(rng.random(USERS)))).astype("int64")
    occupation = np.repeat(list(_OCCUPATIONS), [number for number, _ in _OCCUPATIONS.values()])
    typical = np.repeat([age for _, age in _OCCUPATIONS.values()], [number for number, _ in _OCCUPATIONS.values()])
    users = pd.DataFrame({"age": age, "occupation": occupation[np.argsort(typical + rng.normal(scale=7, size=USERS))]})
    users = users.sample(frac=1, random_state=rng)
    users.insert(1, "gender", rng.permutation(np.repeat(["M", "F"], [_MEN, USERS - _MEN])))
    users["zip"] = [f"{number:05d}" for number in rng.integers(1_000, 99_951, USERS)]
    return users.astype(dict.fromkeys(["gender", "occupation", "zip"], str)).set_index(_make_ids(USERS, "user_id"))


def _make_movies(rng):
    """Make movies; the last has no year and the genre "unknown", as one movie of MovieLens."""
    share = np.array(_GENRE_MOVIES) / sum(_GENRE_MOVIES)
    number = rng.choice(np.arange(1, len(_GENRES_A_MOVIE) + 1), p=_GENRES_A_MOVIE, size=MOVIES)
    drawn = np.argsort(np.argsort(-(np.log(share) + rng.gumbel(size=(MOVIES, len(share)))), axis=1), axis=1)
    flags = np.column_stack([np.zeros(MOVIES, bool), drawn < number[:, None]])
    flags[-1] = np.arange(len(GENRES)) == 0
    year = pd.array(np.rint(_interpolate_quantiles(_YEAR, rng.random(MOVIES))).astype("int64"), dtype="Int64")
    year[-1] = pd.NA
    movies = pd.DataFrame({"title": _make_titles(rng), "year": year}, index=_make_ids(MOVIES, "movie_id"))
    return movies.join(pd.DataFrame(flags, index=movies.index, columns=list(GENRES)))


def _make_titles(rng):
    """Make different titles [MOVIES] with invented names."""
    names = ["".join(syllables) for syllables in itertools.product(*_SYLLABLES)]
    sizes = len(_SHAPES), len(_THINGS), len(names)
    drawn = np.unravel_index(rng.choice(np.prod(sizes), size=MOVIES, replace=False), sizes)
    titles = [_SHAPES[shape].format(_THINGS[thing], names[name]) for shape, thing, name in zip(*drawn, strict=True)]
    return pd.Series(titles).str.replace("^A (?=[AEIOU])", "An ", regex=True).to_list()


def _make_ids(n, name):
    return pd.Index(np.arange(1, n + 1), name=name)


def _standardise(values):
    """Scale columns to mean 0 and variance 1."""
    return (values - values.mean(axis=0)) / values.std(axis=0)
