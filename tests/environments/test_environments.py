"""Environments with one action for each user: their contract, and the rewards of each."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.environments import (
    Factorization,
    MovieLensEnvironment,
    RatedEnvironment,
    StationaryLinearEnvironment,
    als,
    svd,
)
from tests.environments.contract import SeededEnvironmentContract, same
from tests.environments.samples import USERS, features, table


class EnvironmentContract(SeededEnvironmentContract):
    def action(self, environment):
        return tf.range(environment.batch_size) % environment.num_actions

    def variants(self):
        return [self.make(), self.make(available=0.6)]

    def test_a_response_is_the_noisy_reward_with_its_expectation_and_the_optimum(self):
        environment = self.make(reward_noise=0.5, available=0.6, batch_size=50)
        batch = environment.batch()
        action = tf.argmax(batch.mask, axis=1, output_type=tf.int32)
        response = environment.respond(batch, action)
        expected = batch.expected_reward.numpy()[np.arange(50), action]
        np.testing.assert_array_equal(response.expected, expected)
        np.testing.assert_array_equal(response.reward, expected + batch.noise)
        np.testing.assert_array_equal(response.feedback, response.reward)
        np.testing.assert_array_equal(response.optimal, batch.optimal_reward())
        assert np.all(response.expected <= response.optimal)

    def test_the_optimum_is_the_best_of_the_available_arms(self):
        environment = self.make(available=0.5)
        for _ in range(5):
            batch = environment.batch()
            rewards = np.where(batch.mask, batch.expected_reward, -np.inf)
            np.testing.assert_allclose(batch.optimal_reward(), rewards.max(axis=1))
            environment.advance()

    def test_the_observed_mask_is_the_true_one_and_leaves_at_least_one_arm(self):
        batch = self.make(available=0.3, batch_size=200).batch()
        np.testing.assert_array_equal(batch.observation[1], batch.mask.numpy().astype(int))
        assert batch.mask.numpy().any(axis=1).all()
        assert 0.2 < batch.mask.numpy().mean() < 0.6

    def test_noise_is_centred_of_the_given_size_and_does_not_change_the_users(self):
        quiet, noisy = self.make(batch_size=2000), self.make(batch_size=2000, reward_noise=0.5)
        assert same(quiet.batch().observation, noisy.batch().observation)
        noise = noisy.batch().noise.numpy()
        assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(2000)
        assert noise.std() == pytest.approx(0.5, rel=0.1)
        assert not quiet.batch().noise.numpy().any()

    def test_an_offset_is_subtracted_from_rewards_and_changes_no_regret_and_no_observation(self):
        plain, centred = (
            self.make(reward_noise=0.5, batch_size=50, **options) for options in ({}, {"reward_offset": 3})
        )
        action = self.action(plain)
        before, after = (environment.respond(environment.batch(), action) for environment in (plain, centred))
        for first, second in zip(before, after, strict=True):
            np.testing.assert_allclose(first - 3.0, second, atol=1e-5)
        np.testing.assert_allclose(before.optimal - before.expected, after.optimal - after.expected, atol=1e-5)
        assert same(plain.batch().observation, centred.batch().observation)
        np.testing.assert_allclose(plain.batch().unpersonalised - 3.0, centred.batch().unpersonalised, atol=1e-5)

    def test_no_fixed_action_is_better_than_the_best_by_the_unpersonalised_score(self):
        environment = self.make(batch_size=3000)
        batch = environment.batch()
        best = batch.expected(tf.argmax(batch.unpersonalised, axis=1, output_type=tf.int32)).numpy()
        for action in range(environment.num_actions):
            difference = best - batch.expected_reward.numpy()[:, action]
            assert difference.mean() > -4 * difference.std() / np.sqrt(len(difference)) - 1e-6


class TestMovieLensFixedArms(EnvironmentContract):
    def make(self, **options):
        return MovieLensEnvironment(als(table(), rank=3), **({"num_actions": 6, "batch_size": 4} | options))

    def test_rewards_are_linear_in_the_observation_for_every_arm(self):
        """[1, b_u, p_u] . [mean + b_m, 1, q_m] is the prediction of the factorisation."""
        model = als(table(), rank=3)
        batch = self.make(batch_size=50).batch()
        theta = np.column_stack([model.mean + model.movie_bias, np.ones(12), model.movie_factors])[:6]
        np.testing.assert_allclose(batch.observation @ theta.T, batch.expected_reward, rtol=1e-4)

    def test_users_of_the_zero_filled_svd_have_factors_alone(self):
        model = svd(table(), rank=3)
        batch = MovieLensEnvironment(model, num_actions=12, batch_size=20).batch()
        np.testing.assert_allclose(batch.observation @ model.movie_factors.T, batch.expected_reward, atol=1e-5)

    def test_arms_are_the_given_movies_in_their_order(self):
        environment = self.make(num_actions=2, movie_ids=[109, 104])
        np.testing.assert_array_equal(environment.movie_ids, [109, 104])
        mean = als(table(), rank=3).matrix()[:, [8, 3]].mean(axis=0)
        np.testing.assert_allclose(environment.batch().unpersonalised[0], mean, rtol=1e-5)

    @pytest.mark.parametrize("chosen", [{}, {"user_ids": range(10)}])
    def test_no_ratings_are_predicted_but_those_of_its_arms(self, chosen):
        """All 2000 x 2000 of them are 32 MB twice; those of 2 arms are 32 kB, beside arrays of features."""
        rng, ids = np.random.default_rng(0), np.arange(2000)
        factors = rng.normal(size=(2, 2000, 3))
        model = Factorization(ids, ids, 3.0, np.zeros(2000), np.zeros(2000), *factors)
        tracemalloc.start()
        try:
            MovieLensEnvironment(model, num_actions=2, **chosen)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2000**2

    def test_only_the_given_users_are_drawn(self):
        """They are identified by their rewards; the mean over users is theirs, too."""
        model = als(table(), rank=3)
        batch = self.make(batch_size=200, user_ids=model.user_ids[[9, 2]]).batch()
        rewards = model.matrix()[[2, 9], :6].astype("float32")
        np.testing.assert_array_equal(np.unique(batch.expected_reward, axis=0), np.unique(rewards, axis=0))
        np.testing.assert_allclose(batch.unpersonalised[0], rewards.mean(axis=0), rtol=1e-5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"user_ids": []}, "the number of user_ids must be at least 1, got 0"),
            ({"user_ids": [0]}, r"user_ids must be known to the factorisation, got \[0\]"),
            ({"num_actions": 2, "movie_ids": [101, 77]}, r"movie_ids must be known to the factorisation, got \[77\]"),
            ({"num_actions": 13}, "num_actions must be at most the number of movies, 12, got 13"),
            ({"num_actions": 2, "movie_ids": [101, 101]}, "movie_ids must be different from each other"),
            ({"num_actions": 2, "movie_ids": [101, 102, 103]}, "number of movie_ids must be num_actions, 2, got 3"),
        ],
    )
    def test_users_and_movies_that_do_not_exist_or_suffice_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


class TestMovieLensPerArm(EnvironmentContract):
    def make(self, **options):
        options = {"num_actions": 5, "batch_size": 4} | options
        return MovieLensEnvironment(als(table(), rank=3), per_arm=True, **options)

    def test_candidates_are_distinct_and_all_movies_are_drawn(self):
        arms = self.make(batch_size=200).batch().arms.numpy()
        assert all(len(set(row)) == 5 for row in arms)
        assert set(arms.ravel()) == set(range(12))

    def test_one_linear_model_for_all_arms_can_reach_the_optimum(self):
        """Mean + b_u + b_m + 1 . (p_u * q_m): the interaction is what makes this possible."""
        model = als(table(), rank=3)
        batch = self.make(batch_size=50).batch()
        user, arms = batch.observation[GLOBAL], batch.observation[PER_ARM]
        reward = model.mean * user[:, None, 0] + user[:, None, 1] + arms[:, :, 0] + np.sum(arms[:, :, 4:], axis=2)
        np.testing.assert_allclose(reward, batch.expected_reward, rtol=1e-4)


@pytest.mark.parametrize("fit", [als, svd])
@pytest.mark.parametrize("per_arm", [True, False])
def test_observations_are_those_of_the_features_of_the_environment(fit, per_arm):
    """Users are identified by their features; the features have the given movies in their order."""
    model = fit(table(), rank=3)
    movie_ids = model.movie_ids[[6, 1, 8, 3]]
    environment = MovieLensEnvironment(model, 4, 50, per_arm=per_arm, movie_ids=movie_ids)
    batch, known = environment.batch(), environment.features
    assert known.features.item_ids.tolist() == [str(movie) for movie in movie_ids]
    context = (batch.observation[GLOBAL] if per_arm else batch.observation).numpy()
    distance = np.abs(known.features.context(known.encode_users(environment.user_ids)) - context[:, None]).sum(axis=2)
    expected = known.observation(environment.user_ids[distance.argmin(axis=1)], movie_ids[batch.arms.numpy()])
    assert same(batch.observation, expected if per_arm else expected[GLOBAL])


class TestRated(EnvironmentContract):
    def make(self, **options):
        shuffled = table().sample(frac=1, random_state=0)
        return RatedEnvironment(shuffled, features(), **({"num_actions": 4, "batch_size": 4} | options))

    def test_rewards_are_the_ratings_that_these_users_gave_these_movies(self):
        """User and movies of every candidate are identified by their features, and their rating by their ids."""
        rating_features, environment = features(), self.make(batch_size=300)
        batch = environment.batch()
        by_feature = pd.Series(rating_features.users.index, rating_features.users["activity"].astype("float32"))
        users = by_feature[batch.observation[GLOBAL].numpy()[:, 0]].to_numpy()
        movies = environment.movie_ids[batch.arms.numpy()]
        rating = table().set_index(["user_id", "movie_id"])["rating"]
        pairs = pd.MultiIndex.from_arrays([np.repeat(users, 4), movies.ravel()])
        np.testing.assert_array_equal(batch.expected_reward.numpy().ravel(), rating[pairs])
        np.testing.assert_array_equal(batch.observation[PER_ARM], rating_features.observation(users, movies)[PER_ARM])
        mean = table().groupby("movie_id")["rating"].mean()
        np.testing.assert_allclose(batch.unpersonalised.numpy().ravel(), mean[movies.ravel()], rtol=1e-6)
        assert all(len(set(row)) == 4 for row in movies)
        assert set(users) == set(environment.user_ids)

    def test_every_rated_movie_of_a_user_is_equally_frequent_in_every_column(self):
        ratings = table(users=1)
        environment = RatedEnvironment(ratings, features(), num_actions=3, batch_size=9000)
        for column in environment.batch().arms.numpy().T:
            share = np.bincount(column, minlength=len(ratings)) / 9000
            np.testing.assert_allclose(share, 1 / len(ratings), atol=4 * np.sqrt(1 / len(ratings) / 9000))

    def test_users_with_too_few_ratings_are_left_out(self):
        mask = table()["user_id"].value_counts() >= 10
        assert 0 < mask.sum() < USERS
        np.testing.assert_array_equal(self.make(num_actions=10).user_ids, sorted(mask.index[mask]))

    def test_ratings_that_do_not_suffice_or_are_repeated_are_refused(self):
        with pytest.raises(ValueError, match="num_actions must be at most 11, the most ratings of a user, got 13"):
            self.make(num_actions=13)
        with pytest.raises(ValueError, match="user 1 has rated movie 101 again"):
            RatedEnvironment(pd.concat([table(), table().iloc[:1]]), features(), num_actions=2)
        ratings = table()
        ratings.loc[4, "rating"] = np.nan
        with pytest.raises(ValueError, match="row 4 of the ratings must have a user, a movie and a finite rating"):
            RatedEnvironment(ratings, features(), num_actions=2)


class TestStationary(EnvironmentContract):
    def make(self, **options):
        return StationaryLinearEnvironment(**({"num_actions": 4, "context_size": 3, "batch_size": 4} | options))

    def test_rewards_are_theta_times_the_observation(self):
        environment = self.make(batch_size=30)
        batch = environment.batch()
        reward = batch.observation @ environment.theta(0).numpy().T
        np.testing.assert_allclose(batch.expected_reward, reward, rtol=1e-4, atol=1e-5)

    def test_drift_turns_theta_by_that_angle_per_step(self):
        """After half a turn in 20 steps theta has the other sign; a quarter is another theta."""
        environment = self.make(drift=np.pi / 20)
        start, quarter, half = (environment.theta(step).numpy() for step in (0, 10, 20))
        np.testing.assert_allclose(half, -start, atol=1e-5)
        assert np.abs(quarter - start).max() > 0.1
        np.testing.assert_array_equal(self.make().theta(10), self.make().theta(0))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
            ({"reward_noise": float("inf")}, "reward_noise must be 0 or more and finite, got inf"),
            ({"reward_offset": float("nan")}, "reward_offset must be finite, got nan"),
            ({"available": 0.0}, r"available must be in \(0, 1\], got 0.0"),
            ({"num_actions": 1}, "num_actions must be a whole number of at least 2, got 1"),
            ({"num_actions": -1}, "num_actions must be a whole number of at least 2, got -1"),
            ({"context_size": 0}, "context_size must be a whole number of at least 1, got 0"),
            ({"drift": np.inf}, "drift must be finite"),
            ({"seed": "x"}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got 'x'"),
        ],
    )
    def test_values_outside_their_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


class TestDriftingPerArm(EnvironmentContract):
    def make(self, **options):
        options = {"num_actions": 4, "context_size": 3, "batch_size": 4, "drift": 0.01} | options
        return StationaryLinearEnvironment(per_arm=True, **options)

    def test_rewards_are_theta_of_the_step_times_user_arm_and_interaction(self):
        environment = self.make(batch_size=30)
        environment.restart(0, 30)
        batch = environment.batch()
        theta = environment.theta(30).numpy()
        by_user = batch.observation[GLOBAL].numpy() @ theta[:3]
        by_arm = np.einsum("bak,k->ba", batch.observation[PER_ARM], theta[3:])
        np.testing.assert_allclose(batch.expected_reward, by_user[:, None] + by_arm, rtol=1e-4, atol=1e-5)
