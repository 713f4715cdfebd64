"""Environments of slates: their contract, the clicks of each, and parity with TF-Agents."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.bandits.environments import ranking_environment
from tf_agents.specs import tensor_spec

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.environments import MovieLensRankingEnvironment, SyntheticRankingEnvironment, als, base, synthetic
from recbandits.environments.clicks import CLICK_MODELS, Cascade, PositionBased, attraction
from tests.environments.contract import SeededEnvironmentContract, same
from tests.environments.samples import MOVIES, USERS, features, table

ITEMS, SLOTS = 5, 3


class RankingEnvironmentContract(SeededEnvironmentContract):
    def action(self, environment):
        """Return the first candidates in their order, int32 [batch, slots]."""
        return tf.broadcast_to(tf.range(environment.num_slots), [environment.batch_size, environment.num_slots])

    def variants(self):
        return [self.make(feedback=feedback) for feedback in ("score_vector", "cascading")]

    def test_actions_are_slates(self):
        spec = tensor_spec.BoundedTensorSpec([SLOTS], tf.int32, 0, ITEMS - 1, "action")
        assert self.make().action_spec() == spec

    def test_all_that_is_known_of_a_batch_has_the_documented_shape(self):
        environment = self.make()
        batch, shape = environment.batch(), [environment.batch_size, ITEMS]
        assert batch.users.shape == shape[:1]
        assert batch.items.shape == batch.attraction.shape == batch.relevance.shape == shape
        assert "popularity" in batch.baselines
        assert all(scores.shape == shape for scores in batch.baselines.values())
        assert 0 <= batch.attraction.numpy().min() < batch.attraction.numpy().max() <= 1

    def test_clicks_depend_on_seed_and_step(self):
        environment = self.make(batch_size=50)
        batch, slate = environment.batch(), self.action(environment)
        clicks = environment.respond(batch, slate).feedback
        environment.advance()
        assert not same(clicks, environment.respond(batch, slate).feedback)
        environment.restart(0)
        assert same(clicks, environment.respond(batch, slate).feedback)
        environment.restart(1)
        assert not same(clicks, environment.respond(batch, slate).feedback)

    def test_neither_click_model_nor_feedback_changes_the_users(self):
        batch = self.make().batch()
        for clicks in CLICK_MODELS.values():
            assert same(self.make(clicks=clicks(), feedback="cascading").batch(), batch)

    def test_slates_are_compared_on_common_random_numbers(self):
        """Where examination depends on the slot alone, an item in a slot has the same clicks in any slate."""
        environment = self.make(batch_size=200, clicks=PositionBased(0.5))
        batch = environment.batch()
        slates = [tf.constant([slate] * 200) for slate in ([0, 1, 2], [0, 3, 2])]
        clicks = [environment.respond(batch, slate).feedback.numpy() for slate in slates]
        np.testing.assert_array_equal(clicks[0][:, [0, 2]], clicks[1][:, [0, 2]])

    def test_clicks_have_a_stream_of_their_own(self):
        """Clicks are not drawn from the streams of users and candidates."""
        environment = self.make(batch_size=50)
        batch, slate = environment.batch(), self.action(environment)
        clicks, a = environment.respond(batch, slate).feedback, environment.slate_attraction(batch, slate)
        for purpose in (base.USERS, base.ARMS):
            assert not same(clicks, environment.clicks.draw(a, environment.stream(purpose)))

    def test_the_optimal_value_is_the_largest_of_all_slates(self):
        """All 60 ordered slates of 3 from 5 items."""
        environment = self.make(batch_size=20)
        batch = environment.batch()
        slates = itertools.permutations(range(ITEMS), SLOTS)
        responses = [environment.respond(batch, tf.constant([slate] * 20)) for slate in slates]
        values = np.array([response.expected for response in responses])
        np.testing.assert_array_equal(responses[0].optimal, values.max(axis=0))

    def test_click_frequencies_are_the_probabilities_of_the_model(self):
        """100,000 users: clicks minus their expectation are 0 within 4 standard errors in every slot."""
        environment = self.make(batch_size=100_000)
        batch, slate = environment.batch(), self.action(environment)
        clicks = environment.respond(batch, slate).feedback.numpy()
        difference = clicks - environment.clicks.probabilities(environment.slate_attraction(batch, slate)).numpy()
        assert (abs(difference.mean(axis=0)) <= 4 * difference.std(axis=0) / np.sqrt(100_000)).all()

    def test_a_response_consists_of_clicks_value_and_optimum(self):
        environment = self.make(batch_size=100)
        batch, slate = environment.batch(), self.action(environment)
        response = environment.respond(batch, slate)
        np.testing.assert_array_equal(response.reward, np.sum(response.feedback, axis=1))
        shown = environment.clicks.value(environment.slate_attraction(batch, slate))
        np.testing.assert_array_equal(response.expected, shown)
        attractions = np.take_along_axis(batch.attraction.numpy(), slate.numpy(), axis=1)
        np.testing.assert_array_equal(environment.slate_attraction(batch, slate), attractions)

    def test_cascading_feedback_is_the_first_click_of_the_score_vector(self):
        one, other = (self.make(feedback=feedback, batch_size=300) for feedback in ("score_vector", "cascading"))
        slate = self.action(one)
        vector, cascading = one.respond(one.batch(), slate), other.respond(other.batch(), slate)
        any_click = vector.feedback.numpy().any(axis=1)
        assert 0 < any_click.sum() < 300
        first = np.where(any_click, vector.feedback.numpy().argmax(axis=1), SLOTS)
        np.testing.assert_array_equal(cascading.feedback["chosen_index"], first)
        np.testing.assert_array_equal(cascading.feedback["chosen_value"], any_click.astype(float))
        assert same(vector[1:], cascading[1:])

    def test_candidates_are_in_random_order(self):
        """The best of 5 items, any of them on ties, is in each column in a fifth of 20,000 batches."""
        a = self.make(batch_size=20_000).batch().attraction.numpy()
        best = np.argmax(a + 1e-6 * np.random.default_rng(0).random(a.shape), axis=1)
        share = np.bincount(best, minlength=ITEMS) / len(a)
        np.testing.assert_allclose(share, 1 / ITEMS, atol=4 * np.sqrt(1 / ITEMS * (1 - 1 / ITEMS) / len(a)))


class TestSynthetic(RankingEnvironmentContract):
    def make(self, **options):
        return SyntheticRankingEnvironment(**({"num_items": ITEMS, "num_slots": SLOTS, "batch_size": 4} | options))

    def test_attraction_is_logistic_in_the_observation(self):
        """The logits of 1,000 items are fitted exactly by a constant, the item and the interaction with the user."""
        batch = self.make(batch_size=200).batch()
        a = batch.attraction.numpy().ravel().astype(float)
        design = np.column_stack([np.ones(len(a)), batch.observation[PER_ARM].numpy().reshape(len(a), -1)])
        theta, *_ = np.linalg.lstsq(design, np.log(a / (1 - a)), rcond=None)
        np.testing.assert_allclose(design @ theta, np.log(a / (1 - a)), atol=1e-4)
        assert theta[0] == pytest.approx(synthetic.OFFSET, abs=1e-4)
        assert np.linalg.norm(theta[1:]) == pytest.approx(synthetic.SCALE, abs=1e-4)

    def test_the_interaction_is_user_times_item_and_the_context_starts_with_a_constant(self):
        batch = self.make(batch_size=20).batch()
        users, items = batch.observation[GLOBAL].numpy(), batch.observation[PER_ARM].numpy()
        np.testing.assert_array_equal(users[:, 0], 1.0)
        np.testing.assert_allclose(items[:, :, 4:], users[:, None, 1:] * items[:, :, :4], rtol=1e-6)

    def test_attraction_is_as_the_source_says(self):
        """0.24 on average; the best of twenty items 0.67, means over 5,000 users."""
        a = SyntheticRankingEnvironment(batch_size=5000).batch().attraction.numpy()
        assert a.mean() == pytest.approx(0.24, abs=0.01)
        assert a.max(axis=1).mean() == pytest.approx(0.67, abs=0.01)

    @pytest.mark.parametrize(
        ("slate", "message"),
        [
            ([[0, 1, 2], [1, 3, 1]], r"the items of a slate must be different from each other, got \[1 3 1\]"),
            ([[0, 1, 5], [0, 1, 2]], r"row 0, column 2: the items of a slate must be in 0\.\.4, got 5"),
            ([[0, 1], [0, 1]], r"shape of slates must be \[2, 3\], got \[2, 2\]"),
        ],
    )
    def test_slates_that_cannot_be_shown_are_refused(self, slate, message):
        environment = self.make(batch_size=2)
        environment.reset()
        with pytest.raises(ValueError, match=message):
            environment.respond(environment.batch(), tf.constant(slate))
        with pytest.raises(ValueError, match=message):
            environment.step(tf.constant(slate))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
            ({"num_slots": 0}, "num_slots must be a whole number of at least 1, got 0"),
            ({"num_items": 3}, "num_items must be more than num_slots, 3, got 3"),
            ({"num_items": 10.5}, "num_items must be a whole number of at least 1, got 10.5"),
            ({"clicks": "cascade"}, r"clicks must be a click model such as Cascade\(\), got 'cascade'"),
            ({"feedback": "stars"}, "feedback must be one of score_vector, cascading, got 'stars'"),
            ({"context_size": 0}, "context_size must be a whole number of at least 1, got 0"),
        ],
    )
    def test_values_outside_their_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


class TestMovieLens(RankingEnvironmentContract):
    def make(self, known=None, **options):
        options = {"num_items": ITEMS, "num_slots": SLOTS, "batch_size": 4} | options
        return MovieLensRankingEnvironment(als(table(), rank=3), known or features(), **options)

    @pytest.mark.parametrize("known", [features(), features(product=True), features(factors=0)])
    def test_observations_are_those_of_the_features(self, known):
        environment = self.make(known)
        batch = environment.batch()
        expected = known.observation(environment.user_ids[batch.users.numpy()], environment.movie_ids[batch.items])
        for part in (GLOBAL, PER_ARM):
            np.testing.assert_allclose(batch.observation[part], expected[part], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("ids", [{}, {"user_ids": [9, 4], "movie_ids": [112, 101, 103, 105, 104, 110]}])
    def test_relevance_attraction_and_als_are_the_predicted_rating(self, ids):
        model, environment = als(table(), rank=3), self.make(batch_size=50, **ids)
        batch = environment.batch()
        users = np.repeat(environment.user_ids[batch.users], ITEMS)
        rating = model.predict(users, environment.movie_ids[batch.items.numpy().ravel()]).reshape(50, ITEMS)
        np.testing.assert_allclose(batch.baselines["als"], rating, rtol=1e-5)
        np.testing.assert_allclose(batch.relevance, np.clip(rating, 1, 5), rtol=1e-5)
        np.testing.assert_allclose(batch.attraction, attraction(rating), rtol=1e-4, atol=1e-6)

    def test_popularity_is_the_number_of_ratings_or_else_the_mean_attraction(self):
        counts = table()["movie_id"].value_counts().sort_index().to_numpy()
        batch = self.make(batch_size=50).batch()
        np.testing.assert_allclose(np.expm1(batch.baselines["popularity"]), counts[batch.items], rtol=1e-4)
        batch = self.make(features(popularity=False), batch_size=50, user_ids=[3, 8]).batch()
        mean = attraction(als(table(), rank=3).matrix()[[2, 7]]).mean(axis=0)
        np.testing.assert_allclose(batch.baselines["popularity"], mean[batch.items], rtol=1e-4)

    def test_candidates_are_distinct_and_all_movies_and_users_are_drawn(self):
        batch = self.make(batch_size=300).batch()
        items = batch.items.numpy()
        assert all(len(set(row)) == ITEMS for row in items)
        assert set(items.ravel()) == set(range(MOVIES))
        assert set(batch.users.numpy()) == set(range(USERS))

    def test_users_and_movies_can_be_restricted(self):
        """Rows point into the given ids, in their order."""
        movie_ids = [112, 101, 103, 105, 104, 110]
        environment = self.make(batch_size=200, user_ids=[9, 4], movie_ids=movie_ids)
        np.testing.assert_array_equal(environment.user_ids, [9, 4])
        np.testing.assert_array_equal(environment.movie_ids, movie_ids)
        batch = environment.batch()
        activity = features().users["activity"][[9, 4]].to_numpy()
        np.testing.assert_allclose(batch.observation[GLOBAL][:, 0], activity[batch.users])
        assert set(batch.users.numpy()) == {0, 1}
        assert set(batch.items.numpy().ravel()) == set(range(6))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"user_ids": [99]}, r"user_ids must be known to the factorisation, got \[99\]"),
            ({"user_ids": [1, 1]}, "user_ids must be different from each other"),
            ({"user_ids": []}, "the number of user_ids must be at least 1, got 0"),
            ({"movie_ids": [7]}, r"movie_ids must be known to the factorisation, got \[7\]"),
            ({"movie_ids": [101] * 6}, "movie_ids must be different from each other"),
            ({"num_items": 13}, "num_items must be at most the number of movies, 12, got 13"),
        ],
    )
    def test_users_and_movies_that_do_not_exist_or_suffice_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


def feature_functions(batch):
    """Functions that give TF-Agents' environments the users and items of a batch."""
    users, items = (batch.observation[name].numpy() for name in (GLOBAL, PER_ARM))
    items = items.reshape(-1, items.shape[2])
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
    reference = ranking_environment.RankingPyEnvironment(
        *feature_functions(batch),
        num_items=8,
        num_slots=3,
        scores_weight_matrix=weights,
        feedback_model=code.CASCADING if feedback == "cascading" else code.SCORE_VECTOR,
        click_model=ranking_environment.ClickModel.DISTANCE_BASED,
        real_cascade=True,
        distance_threshold=threshold,
        batch_size=200,
    )
    observation = reference.reset().observation
    np.testing.assert_array_equal(observation[PER_ARM], batch.observation[PER_ARM])
    score = np.einsum("bif,fg,bg->bi", batch.observation[PER_ARM], weights, batch.observation[GLOBAL])
    binary_batch = batch._replace(attraction=tf.constant(score >= threshold, tf.float32))
    slate = np.random.default_rng(1).permuted(np.tile(np.arange(8), (200, 1)), axis=1)[:, :3].astype(np.int32)
    response = environment.respond(binary_batch, tf.constant(slate))
    assert same(response.feedback, reference.step(slate).reward)
    np.testing.assert_array_equal(response.reward, response.expected)
    assert 0 < response.reward.numpy().mean() < 1
