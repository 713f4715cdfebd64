"""One contract for every ranking environment; each class below supplies only `make()`. Then parity with TF-Agents."""

import itertools

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tf_agents.bandits.environments import ranking_environment
from tf_agents.environments import tf_environment
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from recbandits.data.features import FeatureBundle
from recbandits.environments import base, synthetic_ranking
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.environments.clicks import CLICK_MODELS, Cascade, PositionBased, attraction
from recbandits.environments.factorization import als
from recbandits.environments.movielens_ranking import MovieLensRankingEnvironment, RatedRankingEnvironment
from recbandits.environments.rated import RatedEnvironment
from recbandits.environments.synthetic_ranking import SyntheticRankingEnvironment

USERS, MOVIES, ITEMS, SLOTS = 30, 12, 5, 3
each_click_model = pytest.mark.parametrize("clicks", CLICK_MODELS.values(), ids=CLICK_MODELS)


def table(seed=0):
    """Ratings of invented users for invented movies, three in four cells; ids from 1 and from 101."""
    generator = np.random.default_rng(seed)
    user, movie = np.nonzero(generator.random((USERS, MOVIES)) < 0.75)
    rating = np.clip(np.round(3.5 + generator.normal(size=len(user))), 1, 5)
    return pd.DataFrame({"user_id": user + 1, "movie_id": movie + 101, "rating": rating})


def features(view="match", popularity=True, factors=2):
    """A number for each user and movie, by which tests know them, and factors."""
    draw = np.random.default_rng(1).normal
    names = [f"factor_{k}" for k in range(factors)]
    users = pd.DataFrame(draw(size=(USERS, 1 + factors)), range(1, USERS + 1), ["activity", *names])
    movies = pd.DataFrame(draw(size=(MOVIES, 1 + factors)), range(101, 101 + MOVIES), ["year", *names])
    if popularity:
        movies["popularity"] = np.log1p(table()["movie_id"].value_counts())
    return FeatureBundle(users.astype("float32"), movies.astype("float32"), view)


def values(nest):
    return [tensor.numpy() for tensor in tf.nest.flatten(nest)]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(values(first), values(second), strict=True))


def first_slate(environment):
    """The first candidates in their order, int32 [batch, slots]."""
    return tf.broadcast_to(tf.range(environment.num_slots), [environment.batch_size, environment.num_slots])


def within_four_errors(difference):
    """Whether the mean of differences [n] is no further from 0 than chance explains."""
    return abs(difference.mean()) <= 4 * difference.std() / np.sqrt(len(difference)) + 1e-9


class RankingEnvironmentContract:
    """What any ranking environment of this package promises."""

    def make(self, **options):
        raise NotImplementedError

    @pytest.mark.parametrize("feedback", ["score_vector", "cascading"])
    def test_it_is_a_tf_agents_environment_whose_time_steps_fit_their_spec(self, feedback):
        environment = self.make(feedback=feedback)
        assert isinstance(environment, tf_environment.TFEnvironment)
        assert environment.action_spec() == tensor_spec.BoundedTensorSpec([SLOTS], tf.int32, 0, ITEMS - 1, "action")
        for time_step in (environment.reset(), environment.step(first_slate(environment))):
            tf.nest.assert_same_structure(time_step, environment.time_step_spec())
            for tensor, spec in zip(
                tf.nest.flatten(time_step), tf.nest.flatten(environment.time_step_spec()), strict=True
            ):
                assert tensor.shape == [environment.batch_size, *spec.shape], "a time step has another shape than spec"
                assert tensor.dtype == spec.dtype

    def test_all_that_is_known_of_a_batch_has_the_shape_it_promises(self):
        environment = self.make()
        batch, shape = environment.batch(), [environment.batch_size, ITEMS]
        assert batch.users.shape == shape[:1]
        assert batch.items.shape == batch.attraction.shape == batch.relevance.shape == shape
        assert "popularity" in batch.baselines
        assert all(scores.shape == shape for scores in batch.baselines.values())
        assert 0 <= batch.attraction.numpy().min() < batch.attraction.numpy().max() <= 1

    def test_reading_the_batch_and_asking_for_a_response_change_nothing(self):
        environment = self.make()
        batch, slate = environment.batch(), first_slate(environment)
        assert same(environment.respond(batch, slate), environment.respond(batch, slate)), "respond() must be pure"
        assert same(batch, environment.batch()), "batch() must not change the state"

    def test_advancing_brings_other_users_and_restarting_brings_the_first_back(self):
        environment = self.make(batch_size=50)
        first, slate = environment.batch(), first_slate(environment)
        clicks = environment.respond(first, slate).feedback
        environment.advance()
        assert not same(first.observation, environment.batch().observation), "advance() must bring a new batch"
        assert not same(clicks, environment.respond(first, slate).feedback), "advance() must bring other uniforms"
        environment.restart(0)
        assert same(first, environment.batch()), "the same seed must give the same batch"
        assert same(clicks, environment.respond(first, slate).feedback), "the same seed must give the same clicks"
        environment.restart(1)
        assert not same(first.observation, environment.batch().observation), "another seed must give another batch"
        assert not same(clicks, environment.respond(first, slate).feedback), "another seed must give other clicks"

    def test_a_step_pays_the_response_and_moves_on(self):
        environment = self.make()
        environment.reset()
        slate = first_slate(environment)
        response = environment.respond(environment.batch(), slate)
        time_step = environment.step(slate)
        assert same(time_step.reward, response.feedback)
        assert same(time_step.observation, environment.batch().observation), "step() must show the next batch"
        assert np.all(time_step.step_type == ts.StepType.LAST)

    def test_it_runs_inside_a_graph_as_outside(self):
        environment = self.make()
        slate = first_slate(environment)

        @tf.function
        def three_steps():
            total = tf.zeros([environment.batch_size, SLOTS])
            for _ in tf.range(3):
                total += environment.step(slate).reward
            return total

        environment.reset()
        eager = sum(environment.step(slate).reward for _ in range(3))
        environment.restart(0)
        np.testing.assert_array_equal(three_steps(), eager)

    def test_neither_click_model_nor_feedback_changes_the_users(self):
        batch = self.make().batch()
        for clicks in CLICK_MODELS.values():
            assert same(self.make(clicks=clicks(), feedback="cascading").batch(), batch)

    def test_slates_are_compared_on_the_same_luck(self):
        """Where nothing else is looked at than the slot itself, one item in one slot has one answer in any slate."""
        environment = self.make(batch_size=200, clicks=PositionBased(0.5))
        batch = environment.batch()
        clicks = [
            environment.respond(batch, tf.constant([slate] * 200)).feedback.numpy() for slate in ([0, 1, 2], [0, 3, 2])
        ]
        np.testing.assert_array_equal(clicks[0][:, [0, 2]], clicks[1][:, [0, 2]])

    def test_clicks_have_luck_of_their_own(self):
        """What users and candidates are drawn with says nothing about the clicks: these are not drawn from it again."""
        environment = self.make(batch_size=50)
        batch, slate = environment.batch(), first_slate(environment)
        clicks, a = environment.respond(batch, slate).feedback, environment.slate_attraction(batch, slate)
        for purpose in (base.USERS, base.ARMS):
            assert not same(clicks, environment.clicks.draw(a, environment.stream(purpose)))

    @each_click_model
    def test_no_slate_is_worth_more_than_the_optimal_one(self, clicks):
        """All 60 ordered slates of 3 from 5 items."""
        environment = self.make(clicks=clicks(), batch_size=20)
        batch = environment.batch()
        slates = itertools.permutations(range(ITEMS), SLOTS)
        best = np.max([environment.value(batch, tf.constant([slate] * 20)) for slate in slates], axis=0)
        np.testing.assert_allclose(environment.optimal_value(batch), best, rtol=1e-6)
        np.testing.assert_array_equal(
            environment.value(batch, environment.optimal_slate(batch)), environment.optimal_value(batch)
        )

    @each_click_model
    def test_users_click_as_often_as_the_value_of_the_slate_says(self, clicks):
        """100,000 users: clicks minus their expectation are 0 within 4 standard errors, in total and in every slot."""
        environment = self.make(clicks=clicks(), batch_size=100_000)
        batch, slate = environment.batch(), first_slate(environment)
        response = environment.respond(batch, slate)
        probability = environment.clicks.probabilities(environment.slate_attraction(batch, slate))
        assert within_four_errors(response.reward.numpy() - response.expected.numpy())
        for slot in range(SLOTS):
            assert within_four_errors(response.feedback.numpy()[:, slot] - probability.numpy()[:, slot])

    @each_click_model
    def test_a_response_is_made_of_clicks_value_and_optimum(self, clicks):
        environment = self.make(clicks=clicks(), batch_size=100)
        batch, slate = environment.batch(), first_slate(environment)
        response = environment.respond(batch, slate)
        np.testing.assert_array_equal(response.reward, np.sum(response.feedback, axis=1))
        np.testing.assert_array_equal(response.expected, environment.value(batch, slate))
        np.testing.assert_array_equal(response.optimal, environment.optimal_value(batch))
        np.testing.assert_array_equal(
            environment.slate_attraction(batch, slate), batch.attraction.numpy()[np.arange(100)[:, None], slate]
        )

    @each_click_model
    def test_cascading_feedback_is_the_first_click_of_the_score_vector(self, clicks):
        one, other = (
            self.make(clicks=clicks(), feedback=feedback, batch_size=300) for feedback in ("score_vector", "cascading")
        )
        slate = first_slate(one)
        vector, cascading = one.respond(one.batch(), slate), other.respond(other.batch(), slate)
        clicked = vector.feedback.numpy().any(axis=1)
        assert 0 < clicked.sum() < 300
        first = np.where(clicked, vector.feedback.numpy().argmax(axis=1), SLOTS)
        np.testing.assert_array_equal(cascading.feedback["chosen_index"], first)
        np.testing.assert_array_equal(cascading.feedback["chosen_value"], clicked.astype(float))
        assert same(vector[1:], cascading[1:]), "reward, expectation and optimum do not depend on the feedback"

    def test_candidates_come_in_random_order(self):
        """The best of 5 items, any of them on ties, stands in each column in a fifth of 20,000 batches."""
        environment = self.make(batch_size=20_000)
        a = environment.batch().attraction.numpy()
        best = np.argmax(a + 1e-6 * np.random.default_rng(0).random(a.shape), axis=1)
        share = np.bincount(best, minlength=ITEMS) / len(a)
        np.testing.assert_allclose(share, 1 / ITEMS, atol=4 * np.sqrt(1 / ITEMS * (1 - 1 / ITEMS) / len(a)))

    def test_slates_that_are_none_are_refused(self):
        environment = self.make(batch_size=2)
        environment.reset()
        batch = environment.batch()
        wrong = {
            "the items of a slate must be different from each other, got \\[1 3 1\\]": [[0, 1, 2], [1, 3, 1]],
            "the items of a slate must be in 0..4, got 5": [[0, 1, 5], [0, 1, 2]],
            "a slate must be \\[batch, slots\\], \\[2, 3\\], got \\[2, 2\\]": [[0, 1], [0, 1]],
        }
        for message, slate in wrong.items():
            for ask in (lambda slate: environment.value(batch, slate), environment.step):
                with pytest.raises(ValueError, match=message):
                    ask(tf.constant(slate))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
            ({"num_slots": 0}, "num_slots must be at least 1, got 0"),
            ({"num_items": 3}, "num_items must be more than num_slots, 3, got 3"),
            ({"clicks": "cascade"}, r"clicks must be a click model such as Cascade\(\), got 'cascade'"),
            ({"feedback": "stars"}, "feedback must be one of score_vector, cascading, got 'stars'"),
        ],
    )
    def test_values_outside_their_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


def sizes(options):
    return {"num_items": ITEMS, "num_slots": SLOTS, "batch_size": 4} | options


class TestSynthetic(RankingEnvironmentContract):
    def make(self, **options):
        return SyntheticRankingEnvironment(**sizes(options))

    def test_attraction_is_logistic_in_what_the_agent_sees(self):
        """The logits of 1,000 items are fitted exactly by a constant, the item and the interaction with the user."""
        batch = self.make(batch_size=200).batch()
        a = batch.attraction.numpy().ravel().astype(float)
        seen = batch.observation[PER_ARM].numpy().reshape(len(a), -1)
        design = np.column_stack([np.ones(len(a)), seen])
        theta, *_ = np.linalg.lstsq(design, np.log(a / (1 - a)), rcond=None)
        np.testing.assert_allclose(design @ theta, np.log(a / (1 - a)), atol=1e-4)
        assert theta[0] == pytest.approx(synthetic_ranking.OFFSET, abs=1e-4)
        assert np.linalg.norm(theta[1:]) == pytest.approx(synthetic_ranking.SCALE, abs=1e-4)

    def test_the_interaction_is_user_times_item_and_the_context_begins_with_a_constant(self):
        batch = self.make(batch_size=20).batch()
        users, items = batch.observation[GLOBAL].numpy(), batch.observation[PER_ARM].numpy()
        np.testing.assert_array_equal(users[:, 0], 1.0)
        np.testing.assert_allclose(items[:, :, 4:], users[:, None, 1:] * items[:, :, :4], rtol=1e-6)

    def test_seeds_are_replications_of_one_problem(self):
        """Another problem has other attractions for the same users and items."""
        one, other = self.make().batch(), self.make(problem_seed=1).batch()
        assert same(one.observation, other.observation)
        assert not same(one.attraction, other.attraction)

    def test_attraction_is_as_the_source_says(self):
        """0.24 on average; the best of twenty items 0.67, means over 5,000 users."""
        a = SyntheticRankingEnvironment(batch_size=5000).batch().attraction.numpy()
        assert a.mean() == pytest.approx(0.24, abs=0.01)
        assert a.max(axis=1).mean() == pytest.approx(0.67, abs=0.01)

    def test_a_problem_without_features_is_refused(self):
        with pytest.raises(ValueError, match="context_size must be at least 1, got 0"):
            self.make(context_size=0)


class TestMovieLens(RankingEnvironmentContract):
    def make(self, bundle=None, **options):
        return MovieLensRankingEnvironment(als(table(), rank=3), bundle or features(), **sizes(options))

    @pytest.mark.parametrize("bundle", [features(), features("product"), features(factors=0)])
    def test_what_it_shows_is_what_the_bundle_shows(self, bundle):
        environment = self.make(bundle)
        batch = environment.batch()
        shown = bundle.observation(environment.user_ids[batch.users.numpy()], environment.movie_ids[batch.items])
        for part in (GLOBAL, PER_ARM):
            np.testing.assert_allclose(batch.observation[part], shown[part], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("ids", [{}, {"user_ids": [9, 4], "movie_ids": [112, 101, 103, 105, 104, 110]}])
    def test_relevance_attraction_and_als_are_the_predicted_rating(self, ids):
        model, environment = als(table(), rank=3), self.make(batch_size=50, top=0.8, **ids)
        batch = environment.batch()
        users = np.repeat(environment.user_ids[batch.users], ITEMS)
        rating = model.predict(users, environment.movie_ids[batch.items.numpy().ravel()]).reshape(50, ITEMS)
        np.testing.assert_allclose(batch.baselines["als"], rating, rtol=1e-5)
        np.testing.assert_allclose(batch.relevance, np.clip(rating, 1, 5), rtol=1e-5)
        np.testing.assert_allclose(batch.attraction, attraction(rating, 0.8), rtol=1e-4, atol=1e-6)

    def test_popular_are_the_movies_with_many_ratings_or_else_the_attractive_ones(self):
        counts = table()["movie_id"].value_counts().sort_index().to_numpy()
        batch = self.make(batch_size=50).batch()
        np.testing.assert_allclose(np.expm1(batch.baselines["popularity"]), counts[batch.items], rtol=1e-4)
        batch = self.make(features(popularity=False), batch_size=50, user_ids=[3, 8]).batch()
        mean = attraction(als(table(), rank=3).matrix()[[2, 7]]).mean(axis=0)
        np.testing.assert_allclose(batch.baselines["popularity"], mean[batch.items], rtol=1e-4)

    def test_candidates_are_distinct_and_every_movie_and_user_comes_now_and_then(self):
        batch = self.make(batch_size=300).batch()
        items = batch.items.numpy()
        assert all(len(set(row)) == ITEMS for row in items), "a movie was offered twice to one user"
        assert set(items.ravel()) == set(range(MOVIES))
        assert set(batch.users.numpy()) == set(range(USERS))

    def test_users_and_movies_can_be_restricted(self):
        """Rows point into the ids asked for, in their order."""
        environment = self.make(batch_size=200, user_ids=[9, 4], movie_ids=[112, 101, 103, 105, 104, 110])
        np.testing.assert_array_equal(environment.user_ids, [9, 4])
        np.testing.assert_array_equal(environment.movie_ids, [112, 101, 103, 105, 104, 110])
        batch = environment.batch()
        activity = features().users["activity"][[9, 4]].to_numpy()
        np.testing.assert_allclose(batch.observation[GLOBAL][:, 0], activity[batch.users])
        assert set(batch.users.numpy()) == {0, 1}
        assert set(batch.items.numpy().ravel()) == set(range(6))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"user_ids": [99]}, "user_ids must be known to the factorisation, 99 is not"),
            ({"user_ids": [1, 1]}, "user_ids must be different from each other"),
            ({"user_ids": []}, "user_ids must name at least one user, got none"),
            ({"movie_ids": [7]}, "movie_ids must be known to the factorisation, 7 is not"),
            ({"movie_ids": [101] * 6}, "movie_ids must be different from each other"),
            ({"num_items": 13}, "num_items must be at most the number of movies, 12, got 13"),
            ({"top": 1.5}, r"top must be in \(0, 1\], got 1.5"),
        ],
    )
    def test_users_and_movies_that_do_not_exist_or_suffice_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


class TestRated(RankingEnvironmentContract):
    def make(self, bundle=None, **options):
        return RatedRankingEnvironment(table().sample(frac=1, random_state=0), bundle or features(), **sizes(options))

    def test_relevance_is_the_rating_that_these_users_gave_these_movies(self):
        environment = self.make(batch_size=200, top=0.7)
        batch = environment.batch()
        users, movies = environment.user_ids[batch.users], environment.movie_ids[batch.items]
        rating = table().set_index(["user_id", "movie_id"])["rating"]
        given = rating[pd.MultiIndex.from_arrays([np.repeat(users, ITEMS), movies.ravel()])].to_numpy()
        np.testing.assert_array_equal(batch.relevance.numpy().ravel(), given)
        np.testing.assert_allclose(batch.attraction.numpy().ravel(), attraction(given, 0.7), rtol=1e-5)
        shown = features().observation(users, movies)
        for part in (GLOBAL, PER_ARM):
            np.testing.assert_array_equal(batch.observation[part], shown[part])

    def test_users_and_movies_are_those_of_the_rated_environment(self):
        """With one seed both draw the same users and the same movies in the same order."""
        shuffled = table().sample(frac=1, random_state=0)
        ours, theirs = self.make(batch_size=50, seed=3), RatedEnvironment(shuffled, features(), ITEMS, 50, seed=3)
        assert same(ours.batch().relevance, theirs.batch().expected_reward)
        assert same(ours.batch().items, theirs.batch().arms)

    def test_baselines_know_nothing_of_these_ratings(self):
        """ALS predicts from what it was fitted on; movies are as popular as the bundle says."""
        model = als(table(seed=9), rank=2)
        environment = self.make(batch_size=50, factorization=model)
        batch = environment.batch()
        users, movies = environment.user_ids[batch.users], environment.movie_ids[batch.items]
        predicted = model.predict(np.repeat(users, ITEMS), movies.ravel())
        np.testing.assert_allclose(batch.baselines["als"].numpy().ravel(), predicted, rtol=1e-5)
        np.testing.assert_allclose(
            batch.baselines["popularity"].numpy().ravel(), features().movies["popularity"][movies.ravel()]
        )
        assert set(self.make().batch().baselines) == {"popularity"}

    def test_a_bundle_without_popularity_leaves_the_mean_attraction_of_a_movie(self):
        environment = self.make(features(popularity=False), batch_size=50)
        mean = table().assign(a=attraction(table()["rating"].to_numpy())).groupby("movie_id")["a"].mean()
        batch = environment.batch()
        np.testing.assert_allclose(
            batch.baselines["popularity"].numpy().ravel(), mean[environment.movie_ids[batch.items].ravel()], rtol=1e-5
        )

    def test_more_candidates_than_anybody_has_rated_are_refused(self):
        with pytest.raises(ValueError, match="num_items must be at most 11, the most ratings of a user, got 12"):
            self.make(num_items=12)


def played_by_tf_agents(environment, batch, copies=1):
    """Functions that give TF-Agents' environments the users and items of a batch, each user `copies` times."""
    users = np.repeat(batch.observation[GLOBAL].numpy(), copies, axis=0)
    items = np.repeat(batch.observation[PER_ARM].numpy(), copies, axis=0).reshape(
        -1, batch.observation[PER_ARM].shape[2]
    )
    # Each function is called once for its spec before the first batch is drawn.
    user, item = itertools.chain(users[:1], itertools.cycle(users)), itertools.chain(items[:1], itertools.cycle(items))
    return lambda: next(user), lambda: next(item)


@pytest.mark.parametrize("feedback", ["score_vector", "cascading"])
def test_a_cascade_of_certain_items_is_the_real_cascade_of_tf_agents(feedback):
    """Scores above a threshold click: with attraction 1 for these and 0 for the others both give the same feedback."""
    environment = SyntheticRankingEnvironment(8, 3, batch_size=200, clicks=Cascade(), feedback=feedback)
    batch = environment.batch()
    weights, threshold = np.random.default_rng(0).normal(size=(8, 5)), 1.5
    code = ranking_environment.FeedbackModel
    theirs = ranking_environment.RankingPyEnvironment(
        *played_by_tf_agents(environment, batch),
        num_items=8,
        num_slots=3,
        scores_weight_matrix=weights,
        feedback_model=code.CASCADING if feedback == "cascading" else code.SCORE_VECTOR,
        click_model=ranking_environment.ClickModel.DISTANCE_BASED,
        real_cascade=True,
        distance_threshold=threshold,
        batch_size=200,
    )
    observation = theirs.reset().observation
    np.testing.assert_array_equal(observation[PER_ARM], batch.observation[PER_ARM])
    score = np.einsum("bif,fg,bg->bi", batch.observation[PER_ARM], weights, batch.observation[GLOBAL])
    ours = batch._replace(attraction=tf.constant(score >= threshold, tf.float32))
    slate = np.random.default_rng(1).permuted(np.tile(np.arange(8), (200, 1)), axis=1)[:, :3].astype(np.int32)
    paid, expected = environment.respond(ours, tf.constant(slate)), theirs.step(slate).reward
    for mine, other in zip(tf.nest.flatten(paid.feedback), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(paid.reward, paid.expected)
    assert 0 < paid.reward.numpy().mean() < 1


def test_position_based_clicks_are_as_frequent_as_in_tf_agents():
    """4 users, 20,000 visits each with the same slate: both frequencies within 4 standard errors of a / k**1.3."""
    visits, environment = 20_000, SyntheticRankingEnvironment(6, 3, batch_size=4)
    batch = environment.batch()
    slate = tf.constant([[0, 1, 2], [5, 3, 1], [2, 4, 0], [3, 0, 5]])
    known = {
        items.tobytes(): a
        for items, a in zip(
            batch.observation[PER_ARM].numpy().reshape(24, -1), batch.attraction.numpy().ravel(), strict=True
        )
    }
    theirs = ranking_environment.ExplicitPositionalBiasRankingEnvironment(
        *played_by_tf_agents(environment, batch, visits),
        relevance_fn=lambda user, item: known[item.tobytes()],
        num_items=6,
        observation_probs=PositionBased(1.3).examination(np.ones((1, 3)))[0],
        batch_size=4 * visits,
    )
    theirs.reset()
    np.random.seed(0)
    slates = np.repeat(slate, visits, axis=0)
    a = np.repeat(environment.slate_attraction(batch, slate), visits, axis=0)
    clicks = {"TF-Agents'": theirs.step(slates).reward, "our": environment.clicks.draw(a, [1, 2]).numpy()}
    p = environment.slate_attraction(batch, slate).numpy() / np.arange(1, 4) ** 1.3
    for whose, drawn in clicks.items():
        frequency = drawn.reshape(4, visits, 3).mean(axis=1)
        assert np.all(np.abs(frequency - p) <= 4 * np.sqrt(p * (1 - p) / visits)), f"{whose} clicks differ"
