"""Solve `Rank`, a problem of the training task: learn from lists of rated movies, rank those that were held out."""

import numpy as np
import pandas as pd

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.data import splits
from recbandits.data.features import FeatureBundle
from recbandits.data.slates import cross_fitted_lists, rated_lists
from recbandits.environments.factorization import als
from recbandits.evaluation.ranking import measure, rank
from recbandits.training.offline import Specs, fit, score_candidates
from recbandits.training.parts import known_and_held_out
from recbandits.training.problems import Outcome

LIKED = 4.0  # stars from which a movie counts as one that its user likes


def ranked(problem, agent, data, places):
    """Solve a `Rank` with an agent that ranks; arguments and result as those of `solve.solve`."""
    rows, exported = [], None
    for seed in problem.seeds:
        world = Lists(problem, data, seed)
        specs = Specs(world.bundle.spec(problem.candidates), problem.size, problem.feedback)
        made, examples = make_agent(agent, specs, seed), world.examples()
        fit(
            made,
            examples,
            epochs=1 if isinstance(agent, LinUCB) else problem.epochs,
            batch_size=problem.batch_size,
            seed=seed,
            checkpoints=places.checkpoints and places.checkpoints / f"seed-{seed}",
            tensorboard=places.tensorboard and places.tensorboard / f"seed-{seed}",
        )
        rows.append(world.judge(made))
        exported = exported or (made.policy, world.bundle, len(examples.event))
    policy, bundle, count = exported
    return Outcome(policy, bundle, arms=None, by_seed=pd.DataFrame(rows).to_dict("list"), examples=count)


class Lists:
    """What a seed of a `Rank` leaves to learn from, and to be judged by.

    Args:
      problem: Rank
      data: MovieLens
      seed: one of the problem's.

    Attributes:
      known: DataFrame of the ratings that lists to learn from are drawn from.
      told: DataFrame of those and, where users are held out, of half of their ratings, which only tell of them.
      held_out: DataFrame of those to be judged by.
      factors: Factorization of the known ratings, with the held-out users folded in.
      bundle: FeatureBundle of what is told.
    """

    def __init__(self, problem, data, seed):
        self._problem, self._data, self._seed = problem, data, seed
        self.known, self.held_out = known_and_held_out(problem, data.ratings, seed)
        self.factors, self.told = als(self.known), self.known
        if problem.split == "user":
            halves = splits.random_split(self.held_out, seed, test_share=0.5)
            history, self.held_out = (self.held_out.iloc[half] for half in halves)
            self.factors, self.told = self.factors.fold_in(history), pd.concat([self.known, history])
        self.bundle = self._describe(self.told, self.factors)

    def examples(self):
        """Lists to learn from, `SlateExamples` with features that have not seen their ratings."""
        problem = self._problem
        drawn = cross_fitted_lists(self.known, problem.size, self._describe, problem.lists, seed=self._seed)
        if problem.feedback == "score_vector":
            return drawn
        return drawn._replace(reward=(drawn.reward >= LIKED).astype(np.float32))

    def judge(self, model):
        """Rank the held-out movies of each user.

        Args:
          model: an agent, or whatever else `offline.score_candidates` takes.

        Returns:
          dict of ndcg, err, map and mrr at `top`, means over the users for whom they are defined, and by how much the
          NDCG is above those of rankings by popularity and by the factorization (`ndcg_over_popularity`,
          `ndcg_over_als`).
        """
        lists, top = rated_lists(self.held_out), self._problem.top
        asked = lists.user_id, lists.candidates, lists.mask
        popular = self.told["movie_id"].value_counts().reindex(lists.candidates.ravel(), fill_value=0).to_numpy()
        ordered = {
            "agent": score_candidates(model, self.bundle, *asked),
            "popularity": popular.reshape(lists.mask.shape),
            "als": score_candidates(self.factors, None, *asked),
        }
        slates = {name: rank(values, top, lists.mask, self._seed) for name, values in ordered.items()}
        means = {name: measure(slate, lists.rating, LIKED).mean() for name, slate in slates.items()}
        over = {f"ndcg_over_{name}": means["agent"]["ndcg"] - means[name]["ndcg"] for name in ("popularity", "als")}
        own = means["agent"][["ndcg", "err", "map", "mrr"]].to_dict()
        return {name: float(value) for name, value in (own | over).items()}

    def _describe(self, ratings, factors=None):
        factors = factors or als(ratings)
        frames = factors.user_frame(), factors.movie_frame()
        return FeatureBundle.fit(ratings, self._data.users, self._data.movies, *frames)
