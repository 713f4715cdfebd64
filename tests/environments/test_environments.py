"""One contract for every environment; each class below supplies only `make()`."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.trajectories import time_step as ts

from recbandits.data.features import FeatureBundle
from recbandits.environments import base
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.environments.factorization import als, svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.environments.rated import RatedEnvironment
from recbandits.environments.stationary import StationaryLinearEnvironment


def ratings(users=30, movies=12, seed=0):
    """Ratings of invented users for invented movies, three in four cells."""
    generator = np.random.default_rng(seed)
    user, movie = np.nonzero(generator.random((users, movies)) < 0.75)
    rating = np.clip(np.round(3.5 + generator.normal(size=len(user))), 1, 5)
    return pd.DataFrame({"user_id": user + 1, "movie_id": movie + 1, "rating": rating})


def values(nest):
    return [tensor.numpy() for tensor in tf.nest.flatten(nest) if tensor is not None]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(values(first), values(second), strict=True))


class EnvironmentContract:
    """What any environment of this package promises."""

    def make(self, **options):
        raise NotImplementedError

    def test_it_is_a_tf_agents_environment_whose_observations_fit_their_spec(self):
        environment = self.make()
        assert isinstance(environment, tf_environment.TFEnvironment)
        time_step = environment.reset()
        for tensor, spec in zip(
            tf.nest.flatten(time_step.observation), tf.nest.flatten(environment.observation_spec()), strict=True
        ):
            assert tensor.shape == [environment.batch_size, *spec.shape], (
                "an observation has another shape than its spec"
            )
            assert tensor.dtype == spec.dtype
        assert np.all(time_step.step_type == ts.StepType.FIRST)

    def test_reading_the_batch_changes_nothing(self):
        environment = self.make()
        assert same(environment.batch(), environment.batch()), "batch() must not change the state"

    def test_advancing_brings_other_users_and_restarting_brings_the_first_back(self):
        environment = self.make()
        first = environment.batch()
        environment.advance()
        assert not same(first.observation, environment.batch().observation), "advance() must bring a new batch"
        environment.restart(0)
        assert same(first, environment.batch()), "the same seed must give the same batch"
        environment.restart(1)
        assert not same(first.observation, environment.batch().observation), "another seed must give another batch"

    def test_a_step_pays_the_expected_reward_of_the_action_and_moves_on(self):
        environment = self.make()
        environment.reset()
        batch = environment.batch()
        action = tf.range(environment.batch_size) % environment.num_actions
        time_step = environment.step(action)
        np.testing.assert_allclose(time_step.reward, batch.expected_reward.numpy()[np.arange(len(action)), action])
        assert same(time_step.observation, environment.batch().observation), "step() must show the next batch"

    def test_a_response_is_the_noisy_reward_with_its_expectation_and_the_best_one(self):
        """What is revealed is paid and learnt from; asking changes nothing."""
        environment = self.make(reward_noise=0.5, available=0.6, batch_size=50)
        batch = environment.batch()
        action = tf.argmax(batch.mask, axis=1, output_type=tf.int32)
        response = environment.respond(batch, action)
        assert same(environment.batch(), batch), "respond() must not change the state"
        expected = batch.expected_reward.numpy()[np.arange(50), action]
        np.testing.assert_array_equal(response.expected, expected)
        np.testing.assert_array_equal(response.reward, expected + batch.noise)
        np.testing.assert_array_equal(response.feedback, response.reward)
        np.testing.assert_array_equal(response.optimal, batch.optimal_reward())
        assert np.all(response.expected <= response.optimal)
        assert same(environment.step(action).reward, response.feedback)

    def test_tf_agents_is_never_shown_users_who_are_gone(self):
        """A driver that goes on after restart() or advance() must see the users whom its next action serves."""
        environment = self.make()
        environment.reset()
        environment.restart(5)
        assert same(environment.current_time_step().observation, environment.batch().observation)
        environment.step(tf.zeros([environment.batch_size], tf.int32))
        environment.advance()
        assert same(environment.current_time_step().observation, environment.batch().observation)

    def test_the_streams_of_two_seeds_have_nothing_in_common(self):
        """Neither the same purpose nor another one draws the same numbers under the next seed."""
        environment, streams = self.make(), set()
        for seed in range(3):
            for step in range(3):
                environment.restart(seed, step)
                streams |= {tuple(environment.stream(purpose).numpy()) for purpose in (base.USERS, base.ARMS, 2, 3)}
        assert len(streams) == 3 * 3 * 4

    def test_it_runs_inside_a_graph_as_outside(self):
        environment = self.make(reward_noise=0.5)
        actions = tf.zeros([environment.batch_size], tf.int32)

        @tf.function
        def three_steps():
            total = tf.zeros([environment.batch_size])
            for _ in tf.range(3):
                total += environment.step(actions).reward
            return total

        environment.reset()
        eager = sum(environment.step(actions).reward for _ in range(3))
        environment.restart(0)
        np.testing.assert_allclose(three_steps(), eager, rtol=1e-5)

    def test_the_optimum_is_the_best_of_the_available_arms(self):
        environment = self.make(available=0.5)
        for _ in range(5):
            batch = environment.batch()
            possible = np.where(batch.mask, batch.expected_reward, -np.inf)
            np.testing.assert_allclose(batch.optimal_reward(), possible.max(axis=1))
            np.testing.assert_array_equal(batch.optimal_action(), possible.argmax(axis=1))
            environment.advance()

    def test_the_observed_mask_is_the_true_one_and_leaves_at_least_one_arm(self):
        environment = self.make(available=0.3, batch_size=200)
        batch = environment.batch()
        np.testing.assert_array_equal(batch.observation[1], batch.mask.numpy().astype(int))
        assert batch.mask.numpy().any(axis=1).all(), "a user was left without any arm"
        assert 0.2 < batch.mask.numpy().mean() < 0.6

    def test_noise_is_centred_of_the_size_asked_for_and_does_not_change_the_users(self):
        quiet, noisy = self.make(batch_size=2000), self.make(batch_size=2000, reward_noise=0.5)
        assert same(quiet.batch().observation, noisy.batch().observation), "noise must not change the users"
        noise = noisy.batch().noise.numpy()
        assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(2000)
        assert noise.std() == pytest.approx(0.5, rel=0.1)
        assert not quiet.batch().noise.numpy().any()

    def test_no_policy_without_personalisation_beats_the_unpersonalised_score(self):
        """Over many users, choosing by the unpersonalised score pays at least what any fixed action pays."""
        environment = self.make(batch_size=3000)
        batch = environment.batch()
        chosen = batch.expected(tf.argmax(batch.unpersonalised, axis=1, output_type=tf.int32)).numpy()
        for action in range(environment.num_actions):
            fixed = batch.expected_reward.numpy()[:, action]
            spread = (chosen - fixed).std() / np.sqrt(len(fixed))
            assert (chosen - fixed).mean() > -4 * spread - 1e-6

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
            ({"reward_noise": -0.1}, "reward_noise must be 0 or more and finite, got -0.1"),
            ({"reward_noise": float("inf")}, "reward_noise must be 0 or more and finite, got inf"),
            ({"available": 0.0}, r"available must be in \(0, 1\], got 0.0"),
            ({"available": 1.5}, r"available must be in \(0, 1\], got 1.5"),
            ({"num_actions": 1}, "num_actions must be at least 2, got 1"),
        ],
    )
    def test_values_outside_their_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


class TestMovieLensFixedArms(EnvironmentContract):
    def make(self, **options):
        return MovieLensEnvironment(als(ratings(), rank=3), **({"num_actions": 6, "batch_size": 4} | options))

    def test_rewards_are_linear_in_the_observation_for_every_arm(self):
        """[1, b_u, p_u] . [mean + b_m, 1, q_m] is the prediction of the factorisation."""
        model = als(ratings(), rank=3)
        batch = self.make(batch_size=50).batch()
        theta = np.column_stack([model.mean + model.movie_bias, np.ones(12), model.movie_factors])[:6]
        np.testing.assert_allclose(batch.observation @ theta.T, batch.expected_reward, rtol=1e-4)

    def test_zero_filled_svd_shows_the_factors_alone(self):
        model = svd(ratings(), rank=3)
        batch = MovieLensEnvironment(model, num_actions=12, batch_size=20).batch()
        np.testing.assert_allclose(batch.observation @ model.movie_factors.T, batch.expected_reward, atol=1e-5)

    def test_arms_are_the_movies_asked_for(self):
        model = als(ratings(), rank=3)
        environment = MovieLensEnvironment(model, num_actions=2, batch_size=4, movie_ids=[9, 4])
        np.testing.assert_array_equal(environment.movie_ids, [9, 4])
        batch = environment.batch()
        np.testing.assert_allclose(batch.unpersonalised[0], model.matrix()[:, [8, 3]].mean(axis=0), rtol=1e-5)

    def test_movies_that_do_not_exist_or_do_not_suffice_are_refused(self):
        model = als(ratings(), rank=3)
        with pytest.raises(ValueError, match="movie_ids must be known to the factorisation, 77 is not"):
            MovieLensEnvironment(model, num_actions=2, movie_ids=[1, 77])
        with pytest.raises(ValueError, match="num_actions must be at most the number of movies, 12, got 13"):
            MovieLensEnvironment(model, num_actions=13)
        with pytest.raises(ValueError, match="movie_ids must be different from each other"):
            MovieLensEnvironment(model, num_actions=2, movie_ids=[1, 1])
        with pytest.raises(ValueError, match="one movie per arm, 2, got 3"):
            MovieLensEnvironment(model, num_actions=2, movie_ids=[1, 2, 3])


class TestMovieLensPerArm(EnvironmentContract):
    def make(self, **options):
        options = {"num_actions": 5, "batch_size": 4} | options
        return MovieLensEnvironment(als(ratings(), rank=3), per_arm=True, **options)

    def test_candidates_are_distinct_and_rewards_are_those_of_the_movies(self):
        model = als(ratings(), rank=3)
        batch = self.make(batch_size=200).batch()
        arms = batch.arms.numpy()
        assert all(len(set(row)) == 5 for row in arms), "a movie was offered twice to one user"
        assert set(arms.ravel()) == set(range(12)), "every movie must be offered now and then"
        bias = batch.observation[PER_ARM][:, :, 0]
        np.testing.assert_allclose(bias, model.movie_bias[arms], rtol=1e-5)
        interaction = batch.observation[PER_ARM][:, :, 4:]
        user = batch.observation[GLOBAL]
        np.testing.assert_allclose(interaction, user[:, None, 2:] * model.movie_factors[arms], atol=1e-6)

    def test_one_linear_model_for_all_arms_can_reach_the_optimum(self):
        """Mean + b_u + b_m + 1 . (p_u * q_m): the interaction is what makes this possible."""
        model = als(ratings(), rank=3)
        batch = self.make(batch_size=50).batch()
        user, arms = batch.observation[GLOBAL], batch.observation[PER_ARM]
        reward = model.mean * user[:, None, 0] + user[:, None, 1] + arms[:, :, 0] + np.sum(arms[:, :, 4:], axis=2)
        np.testing.assert_allclose(reward, batch.expected_reward, rtol=1e-4)

    def test_users_and_movies_can_be_described_by_id(self):
        """Whoever the first batch drew, asking for them by id gives the same features."""
        model = als(ratings(), rank=3)
        environment = self.make()
        batch = environment.batch()
        users = [int(np.abs(model.user_features() - row).sum(axis=1).argmin()) for row in batch.observation[GLOBAL]]
        described = environment.describe(model.user_ids[users], model.movie_ids[batch.arms.numpy()])
        assert same(described, batch.observation)
        with pytest.raises(ValueError, match="user_ids must be known to the factorisation, 999 is not"):
            environment.describe([999], [[1, 2, 3, 4, 5]])


@pytest.mark.parametrize("model", [als(ratings(), rank=3), svd(ratings(), rank=3)], ids=["als", "svd"])
@pytest.mark.parametrize("per_arm", [True, False])
def test_the_bundle_of_an_environment_shows_exactly_what_the_environment_shows(model, per_arm):
    environment = MovieLensEnvironment(model, 4, 8, per_arm=per_arm, movie_ids=[7, 2, 9, 4])
    users, movies = [5, 1, 30], [[7, 2, 9, 4], [4, 9, 2, 7], [2, 4, 7, 9]]
    features, described = environment.bundle(), environment.describe(users, movies)
    shown = features.observation(users, movies)
    pairs = [(shown[part], described[part]) for part in (GLOBAL, PER_ARM)] if per_arm else [(shown[GLOBAL], described)]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs.numpy())
    assert features.movies.index.tolist() == [7, 2, 9, 4]


def bundle(users=30, movies=12, seed=1):
    """Features of the same invented users and movies: a number each, and two factors."""
    draw = np.random.default_rng(seed).normal
    factors = ["factor_0", "factor_1"]
    return FeatureBundle(
        pd.DataFrame(draw(size=(users, 3)), range(1, users + 1), ["activity", *factors]).astype("float32"),
        pd.DataFrame(draw(size=(movies, 3)), range(1, movies + 1), ["popularity", *factors]).astype("float32"),
    )


class TestRated(EnvironmentContract):
    def make(self, **options):
        shuffled = ratings().sample(frac=1, random_state=0)
        return RatedEnvironment(shuffled, bundle(), **({"num_actions": 4, "batch_size": 4} | options))

    def test_rewards_are_the_ratings_that_these_users_gave_these_movies(self):
        """User and movies of every candidate are found by their features, and their rating by their ids."""
        table, features, environment = ratings(), bundle(), self.make(batch_size=300)
        batch = environment.batch()
        by_feature = pd.Series(features.users.index, features.users["activity"])
        users = by_feature[batch.observation[GLOBAL].numpy()[:, 0]].to_numpy()
        movies = environment.movie_ids[batch.arms.numpy()]
        rating = table.set_index(["user_id", "movie_id"])["rating"]
        pairs = pd.MultiIndex.from_arrays([np.repeat(users, 4), movies.ravel()])
        np.testing.assert_array_equal(batch.expected_reward.numpy().ravel(), rating[pairs])
        np.testing.assert_array_equal(batch.observation[PER_ARM], features.observation(users, movies)[PER_ARM])
        mean = table.groupby("movie_id")["rating"].mean()
        np.testing.assert_allclose(batch.unpersonalised.numpy().ravel(), mean[movies.ravel()], rtol=1e-6)
        assert all(len(set(row)) == 4 for row in movies), "a movie was offered twice to one user"
        assert set(users) == set(environment.user_ids), "every user must come now and then"

    def test_every_rated_movie_of_a_user_is_offered_as_often_and_in_any_place(self):
        table = ratings(users=1, movies=12)
        environment = RatedEnvironment(table, bundle(), num_actions=3, batch_size=9000)
        arms = environment.batch().arms.numpy()
        for place in arms.T:
            share = np.bincount(place, minlength=len(table)) / 9000
            np.testing.assert_allclose(share, 1 / len(table), atol=4 * np.sqrt(1 / len(table) / 9000))

    def test_users_with_too_few_ratings_do_not_come_and_ratings_must_be_one_for_a_movie(self):
        table = ratings()
        many = table["user_id"].value_counts() >= 10
        environment = RatedEnvironment(table, bundle(), num_actions=10)
        np.testing.assert_array_equal(environment.user_ids, sorted(many.index[many]))
        with pytest.raises(ValueError, match="num_actions must be at most 11, the most ratings of a user, got 13"):
            RatedEnvironment(table, bundle(), num_actions=13)
        again = pd.concat([table, table.iloc[:1]])
        with pytest.raises(ValueError, match="user 1 has rated movie 1 again"):
            RatedEnvironment(again, bundle(), num_actions=2)


class TestStationary(EnvironmentContract):
    def make(self, **options):
        return StationaryLinearEnvironment(**({"num_actions": 4, "context_size": 3, "batch_size": 4} | options))

    def test_rewards_are_theta_times_the_observation(self):
        environment = self.make(batch_size=30)
        batch = environment.batch()
        np.testing.assert_allclose(
            batch.expected_reward, batch.observation @ environment.theta(0).numpy().T, rtol=1e-4, atol=1e-5
        )

    def test_drift_turns_theta_by_that_angle_per_step(self):
        """After a quarter turn in 10 steps nothing of the first theta is left."""
        environment = self.make(drift=np.pi / 20)
        start, quarter, half = (environment.theta(step).numpy() for step in (0, 10, 20))
        np.testing.assert_allclose(half, -start, atol=1e-5)
        assert np.abs(quarter - start).max() > 0.1
        assert np.abs(self.make().theta(10).numpy() - self.make().theta(0).numpy()).max() == 0.0

    @pytest.mark.parametrize(
        ("options", "message"), [({"context_size": 0}, "context_size must be"), ({"drift": np.inf}, "drift must be")]
    )
    def test_impossible_problems_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.make(**options)


class TestStationaryPerArm(EnvironmentContract):
    def make(self, **options):
        options = {"num_actions": 4, "context_size": 3, "batch_size": 4} | options
        return StationaryLinearEnvironment(per_arm=True, **options)

    def test_rewards_are_theta_times_user_arm_and_interaction(self):
        environment = self.make(batch_size=30)
        batch = environment.batch()
        theta = environment.theta(0).numpy()
        from_user = batch.observation[GLOBAL].numpy() @ theta[:3]
        from_arm = np.einsum("bak,k->ba", batch.observation[PER_ARM], theta[3:])
        np.testing.assert_allclose(batch.expected_reward, from_user[:, None] + from_arm, rtol=1e-4, atol=1e-5)


class TestStationaryDrifting(EnvironmentContract):
    def make(self, **options):
        return StationaryLinearEnvironment(drift=0.01, **({"num_actions": 4, "batch_size": 4} | options))
