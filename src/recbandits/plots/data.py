"""Pictures of MovieLens: ratings, movies, users, times, sparsity, and factors of a factorisation."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from recbandits.data.movielens import STARS, MovieLens
from recbandits.plots.style import BESIDE, COLOURS, GREY_TEXT, REFERENCE, figure


def rating_shares(data: MovieLens) -> Figure:
    """Draw the share of each rating, with the mean."""
    ratings = data.ratings["rating"]
    stars = np.union1d(STARS, ratings)  # some sets have half stars
    shares = ratings.value_counts(normalize=True).reindex(stars, fill_value=0)
    with figure(5.5, 3.2) as (fig, ax):
        bars = ax.bar(stars, shares, width=0.7 * np.diff(stars).min())
        ax.bar_label(bars, [f"{share:.1%}" for share in shares])
        ax.axvline(ratings.mean(), color=COLOURS[1], linestyle="--", label=f"mean {ratings.mean():.2f}")
        ax.set(title="Ratings", xlabel="rating [stars]", ylabel="share of ratings", xticks=stars)
        ax.set_ylim(0, 1.18 * shares.max())
        ax.grid(visible=False, axis="x")
        ax.legend(**BESIDE)
    return fig


def long_tail(data: MovieLens) -> Figure:
    """Draw ratings per movie by rank, and ratings per user, both on logarithmic scales."""
    movies = data.ratings["movie_id"].value_counts().to_numpy()
    users = data.ratings["user_id"].value_counts().to_numpy()
    top = len(movies) // 10
    with figure(9, 3.4, ncols=2) as (fig, (left, right)):
        left.loglog(np.arange(1, len(movies) + 1), movies)
        left.axvspan(1, top, color=COLOURS[1], alpha=0.12)
        share = movies[:top].sum() / movies.sum()
        left.text(1.2, 1.3, f"a tenth of the movies,\n{share:.0%} of the ratings", color=COLOURS[1])
        left.set(title="Movies", xlabel="rank of the movie by number of ratings", ylabel="ratings of the movie")
        right.hist(users, bins=np.geomspace(users.min(), users.max(), 30))
        right.axvline(np.median(users), color=COLOURS[1], linestyle="--", label=f"median {np.median(users):.0f}")
        right.set(title="Users", xlabel="ratings of the user", ylabel="users", xscale="log")
        right.minorticks_off()
        right.set_xticks([20, 50, 100, 200, 500], labels=[20, 50, 100, 200, 500])
        right.legend(**BESIDE)
    return fig


def genres(data: MovieLens) -> Figure:
    """Draw the movies of each genre, and the mean rating of its movies, where the set has genres."""
    names = [name for name in data.movies.columns[2:] if data.movies[name].any()]
    if not names:
        return _draw_sentence("Genres are not in this set.")
    rated = data.ratings.merge(data.movies[names], left_on="movie_id", right_index=True)
    table = pd.DataFrame(
        {"movies": data.movies[names].sum(), "mean": {name: rated.loc[rated[name], "rating"].mean() for name in names}}
    ).sort_values("movies")
    with figure(9, 4.6, ncols=2, sharey=True) as (fig, (left, right)):
        bars = left.barh(table.index, table["movies"])
        left.bar_label(bars, padding=2, fontsize=9)
        left.set(title="Movies", xlabel="movies (one may have several genres)")
        right.plot(table["mean"], table.index, "o")
        mean = data.ratings["rating"].mean()
        right.axvline(mean, color=REFERENCE, linestyle="--", label=f"all ratings, {mean:.2f}")
        right.set(title="Ratings", xlabel="mean rating [stars]")
        right.legend(**BESIDE)
        left.grid(visible=False, axis="y")
    return fig


def demographics(data: MovieLens) -> Figure:
    """Draw ages by gender, and occupations, where the set has them."""
    users = data.users
    if users.columns.empty:
        return _draw_sentence("Age, gender and occupation are not in this set.")
    occupations = users["occupation"].value_counts().sort_values()
    with figure(9, 4.2, ncols=2) as (fig, (left, right)):
        ages = [users.loc[users["gender"] == gender, "age"] for gender in ("M", "F")]
        labels = [f"men, {len(ages[0])}", f"women, {len(ages[1])}"]
        left.hist(ages, bins=np.arange(0, 81, 5), stacked=True, label=labels)
        left.set(title="Age", xlabel="age [years]", ylabel="users")
        left.legend(**BESIDE)
        right.barh(occupations.index, occupations)
        right.tick_params(axis="y", labelsize=9)
        right.grid(visible=False, axis="y")
        right.set(title="Occupation", xlabel="users")
    return fig


def activity_over_time(data: MovieLens) -> Figure:
    """Draw ratings per week, and the time between a user's first rating and the last."""
    time = data.ratings["time"].dt.tz_localize(None)
    weeks = time.dt.to_period("W").value_counts().sort_index()
    by_user = data.ratings.groupby("user_id")["time"]
    hours = (by_user.max() - by_user.min()).dt.total_seconds().sort_values() / 3600
    with figure(9, 3.2, ncols=2) as (fig, (left, right)):
        left.bar(weeks.index.start_time, weeks, width=6)
        locator = AutoDateLocator(maxticks=6)
        left.xaxis.set_major_locator(locator)
        left.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        left.set(title="Ratings per week", ylabel="ratings")
        right.semilogx(hours.clip(lower=1 / 60), np.linspace(0, 1, len(hours)))
        for hour, name in ((1, "an hour"), (24, "a day"), (24 * 30, "a month")):
            right.axvline(hour, color=REFERENCE, linestyle=":")
            right.text(hour, 0.02, f" {name}", color=GREY_TEXT)
        right.set(title="From a user's first rating to the last", xlabel="time [hours]", ylabel="share of users")
    return fig


def sparsity(data: MovieLens) -> Figure:
    """Draw the density of the rating matrix in 80 x 80 blocks, the most active users and most rated movies first."""
    user = data.ratings["user_id"].map(_rank(data.ratings["user_id"]))
    movie = data.ratings["movie_id"].map(_rank(data.ratings["movie_id"]))
    edges = [np.linspace(0, number.max() + 1, 81) for number in (user, movie)]
    count, _, _ = np.histogram2d(user, movie, bins=edges)
    share = count / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    rated = len(data.ratings) / (len(data.users) * len(data.movies))
    with figure(6, 3.8) as (fig, ax):
        extent = (0, edges[1][-1], edges[0][-1], 0)
        image = ax.imshow(np.clip(share, 0.002, 1), norm=LogNorm(0.002, 1), cmap="Blues", extent=extent, aspect="auto")
        fig.colorbar(image, label="share of the block that is rated")
        ax.set(title=f"{rated:.1%} of the matrix is rated", xlabel="movies, by popularity", ylabel="users, by activity")
        ax.grid(visible=False)
    return fig


def errors_by_rank(errors: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """Draw RMSE (`errors`: rank, seed, rmse) by number of factors, and references, RMSE by name, as lines."""
    by_rank = errors.groupby("rank")["rmse"]
    with figure(6, 3.4) as (fig, ax):
        ax.plot(by_rank.mean(), "o-", label="ALS, biases and factors")
        ax.fill_between(by_rank.mean().index, by_rank.min(), by_rank.max(), alpha=0.2)
        for (name, value), style in zip(references.items(), ("--", ":", "-."), strict=False):
            ax.axhline(value, color=REFERENCE, linestyle=style, label=f"{name}, {value:.3f}")
        ax.set(title="Error on held-out ratings", xlabel="factors", ylabel="RMSE [stars]", xscale="log")
        ax.set_xticks(by_rank.mean().index, labels=by_rank.mean().index)
        ax.minorticks_off()
        ax.legend(**BESIDE)
    return fig


def calibration(rating: np.ndarray, predictions: Mapping[str, np.ndarray], bins: int = 10) -> Figure:
    """Draw mean rating against mean prediction, float [n] in stars, in bins of equally many held-out ratings."""
    with figure(7, 4.2) as (fig, ax):
        ax.plot([0, 5], [0, 5], color=REFERENCE, linestyle="--", label="prediction = rating")
        for (name, prediction), marker in zip(predictions.items(), cycle("os^D"), strict=False):
            parts = np.array_split(np.argsort(prediction), bins)
            means = [[values[part].mean() for part in parts] for values in (prediction, rating)]
            ax.plot(*means, f"{marker}-", label=name)
        ax.set(title="Calibration on held-out ratings", xlabel="mean prediction [stars]", ylabel="mean rating [stars]")
        ax.set(xlim=(-0.2, 5), ylim=(0, 5))  # a mean prediction can be below 0
        ax.legend(**BESIDE)
    return fig


def taste_map(movie_factors: pd.DataFrame, data: MovieLens, ratings: int = 100, labels: int = 12) -> Figure:
    """Draw movies on the two directions of largest variance of their factors, and the means of genres of 10 movies.

    `movie_factors` is a DataFrame [movies, rank] indexed by movie_id. The movies have at least `ratings` ratings; of
    the titles, those farthest out are written, `labels` at most.
    """
    count = data.ratings["movie_id"].value_counts().reindex(movie_factors.index, fill_value=0)
    at = _directions(movie_factors[count >= ratings])
    with figure(11, 5, ncols=2, width_ratios=(3, 2)) as (fig, (left, right)):
        left.scatter(at["x"], at["y"], s=count[at.index] / 6, alpha=0.3, linewidths=0)
        for movie in _apart(at, labels):
            x, y = at.loc[movie]
            left.text(x, y, data.movies["title"][movie], fontsize=9, ha="left" if x < 0 else "right", va="bottom")
        left.set(title=f"Movies with {ratings} ratings or more", xlabel="first direction", ylabel="second direction")
        members = {name: at[data.movies[name].reindex(at.index)] for name in data.movies.columns[2:]}
        means = {name: rows.mean() for name, rows in members.items() if len(rows) >= 10}
        for colour, (name, mean) in zip(cycle(COLOURS), means.items(), strict=False):
            right.plot(*mean, "o", color=colour)
            right.text(*mean, f" {name}", fontsize=9)
        title = "Means of their genres, enlarged" if means else "No genre has 10 of these movies"
        right.set(title=title, xlabel="first direction")
        right.margins(x=0.2)
    return fig


def _draw_sentence(text):
    with figure(9, 1) as (fig, ax):
        ax.set_axis_off()
        ax.text(0, 0.5, text)
    return fig


def _rank(ids):
    """Position of each id by how often it occurs, the most frequent first."""
    counts = ids.value_counts()
    return pd.Series(np.arange(len(counts)), counts.index)


def _directions(factors):
    """Coordinates x, y on the two directions of largest variance; the entry of the largest size is positive."""
    centred = factors.to_numpy() - factors.to_numpy().mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    at = centred @ directions[:2].T
    largest = at[np.abs(at).argmax(axis=0), [0, 1]]
    return pd.DataFrame(at * np.sign(largest), factors.index, ["x", "y"])


def _apart(at, number):
    """Ids of the points farthest from the centre, leaving out those whose labels would cover another."""
    chosen = []
    for movie in (at**2).sum(axis=1).sort_values(ascending=False).index:
        distance = (at.loc[chosen] - at.loc[movie]).abs()
        if len(chosen) < number and not ((distance["x"] < 0.9) & (distance["y"] < 0.06)).any():
            chosen.append(movie)
    return chosen
