"""Reward networks: TF-Agents' networks and its reward-prediction agent, and LinUCB on an encoding that is learned."""

from collections.abc import Callable
from functools import partial

from recbandits.tf import tf

import numpy as np
from tf_agents.bandits.agents import greedy_reward_prediction_agent
from tf_agents.bandits.networks import global_and_arm_feature_network as networks
from tf_agents.networks import encoding_network, q_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from recbandits.agents.agent import GLOBAL, PER_ARM, make_counter
from recbandits.agents.linear import LinearModel, read_experience
from recbandits.agents.parameters import Network, NeuralLinUCB
from recbandits.serving.scorer import Scorer, linear_head, make_scorer


class RewardNetwork(tf.Module):
    """A network that predicts the reward of every arm, trained by TF-Agents' `GreedyRewardPredictionAgent`.

    With per-arm features the layers in `parameters` are those of each tower and of the common one. `make_network` of
    (features_spec, num_arms, parameters) gives another network, `make_trainer` of (features_spec, num_arms, network,
    optimizer) another agent to train it. ValueError for a dot product of anything but a context and arms.
    """

    def __init__(
        self,
        features_spec: types.NestedTensorSpec,
        num_arms: int,
        parameters: Network,
        seed: int,
        make_network: Callable | None = None,
        make_trainer: Callable | None = None,
    ):
        super().__init__(name="reward_network")
        self._join, self._depth = _find_join(features_spec, parameters), len(parameters.layers)
        self.network = (make_network or _make_reward_network)(features_spec, num_arms, parameters)
        self.network.create_variables()
        self.reseed(seed)
        optimizer = _make_adam(parameters, self.network.trainable_variables)
        self._optimizer_state = list(optimizer.variables)
        self._trainer = (make_trainer or _make_trainer)(features_spec, num_arms, self.network, optimizer)

    def reseed(self, seed: int) -> None:
        """Set the initial weights of a seed: kernels He-normal, biases zero; they depend on no global seed."""
        generator = np.random.default_rng(seed)
        for variable in self.network.trainable_variables:
            value = np.zeros(variable.shape)
            if variable.shape.rank > 1:
                fan_in = max(1, variable.shape[-2])  # 0 where a context or an arm has no features
                value = generator.normal(scale=np.sqrt(2.0 / fan_in), size=variable.shape)
            variable.assign(value.astype(np.float32))

    def scores(self, features: types.NestedTensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the predicted reward of every arm, float [batch, arms]; the seed is not read."""
        return self.network(features)[0]

    def scorer(self) -> Scorer:
        """Return the network as a `Scorer`."""
        variables = self.network.trainable_variables
        total = [linear_head(np.ones((1, variables[-1].shape[0]), np.float32))] if self._join == "product" else []
        return make_scorer(self._join, self._depth, variables, total)

    def learn(self, experience: types.Trajectory, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Take a gradient step on the weighted mean squared error of the chosen arms, and return it."""
        # the gradients of all replicas are added up, and their sum must be that of the mean over the whole batch
        share = (1.0 if weights is None else weights) / tf.distribute.get_strategy().num_replicas_in_sync
        return self._trainer.train(experience, share).loss


class EncodedLinearModel(tf.Module):
    """A network learns an encoding in the first batches; from then on a `LinearModel` learns on it.

    The idea is that of Zhou et al. 2020, "Neural Contextual Bandits with UCB-based Exploration"; an encoding that does
    not change any more is TF-Agents' simplification. TF-Agents' own NeuralLinUCB counts its training steps in a
    variable that all agents of a process share, and unrolls one solver per arm; hence this one. Arguments are those of
    `RewardNetwork`; with "dot_product" the encoding is the product of the towers, element by element.
    """

    def __init__(self, features_spec: types.NestedTensorSpec, num_arms: int, parameters: NeuralLinUCB, seed: int):
        super().__init__(name="encoded_linear_model")
        self._join = _find_join(features_spec, parameters)
        self._depth = len(parameters.layers) + (self._join == "product")
        self._pretraining = RewardNetwork(features_spec, num_arms, parameters, seed, _EncoderWithHead)
        self._network = self._pretraining.network
        self._pretrain_left = make_counter("pretrain_left", parameters.pretrain_steps)
        self.linear = LinearModel(parameters.encoding, self._network.head.shape[0], parameters.tikhonov)

    @property
    def pretraining(self) -> tf.Tensor:
        """Bool tensor: True while the network learns."""
        return self._pretrain_left > 0

    def encode(self, features: types.NestedTensor) -> tf.Tensor:
        """Return the encoding [batch, size], or [batch, arms, size] with per-arm features."""
        return self._network.encoder(features)[0]

    def estimate(self, features: types.NestedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mean and width float32 [batch, arms] as `LinearModel.estimate`; before the switch the width is 0."""
        encoding = self.encode(features)

        def by_network():
            mean = self._network.predict(encoding)
            return mean, tf.zeros_like(mean)

        return tf.cond(self.pretraining, by_network, lambda: self.linear.estimate(encoding))

    def scorer(self) -> Scorer:
        """Return the encoder and the present head as a `Scorer`."""
        head = linear_head((self._network.head if self.pretraining else self.linear.theta).numpy())
        return make_scorer(self._join, self._depth, self._network.encoder.trainable_variables, [head])

    def learn(
        self, experience: types.Trajectory, weights: tf.Tensor | None = None, network: bool | None = None
    ) -> tf.Tensor:
        """Train the network (`network` True) or the linear model (False) with one batch, and return the loss.

        None trains the network as long as batches of pretraining are left.
        """
        train_network = partial(self._pretraining.learn, experience, weights)
        train_linear = partial(self._train_linear, experience, weights)
        if network is None:
            loss = tf.cond(self.pretraining, train_network, train_linear)
            self._pretrain_left.assign(tf.maximum(self._pretrain_left - 1, 0))
            return loss
        self._pretrain_left.assign(int(network))
        return train_network() if network else train_linear()

    def _train_linear(self, experience, weights):
        features, action, reward = read_experience(experience)
        if isinstance(features, dict):
            encoding = self.encode(features | {PER_ARM: features[PER_ARM][:, None, :]})[:, 0, :]
        else:
            encoding = self.encode(features)
        return self.linear.update(encoding, action, reward, weights)


class _TowerProduct(tf.Module):
    """A dot-product network before its sum: elementwise product of a context's and each arm's tower."""

    def __init__(self, features_spec, layers):
        super().__init__(name="tower_product")
        arm = tf.TensorSpec(features_spec[PER_ARM].shape[1:], tf.float32)
        self._towers = [
            encoding_network.EncodingNetwork(spec, fc_layer_params=layers, activation_fn=tf.nn.elu)
            for spec in (features_spec[GLOBAL], arm)
        ]

    def create_variables(self):
        for tower in self._towers:
            tower.create_variables()

    def __call__(self, features):
        context, arms = (tower(features[part])[0] for tower, part in zip(self._towers, (GLOBAL, PER_ARM), strict=True))
        return context[:, None, :] * arms, ()


class _EncoderWithHead(tf.Module):
    """An encoder and linear models on its encoding, with the attributes that TF-Agents' agents read of a network."""

    state_spec = ()

    def __init__(self, features_spec, num_arms, parameters):
        super().__init__(name="encoder_with_head")
        layers, size, join = parameters.layers, parameters.encoding, _find_join(features_spec, parameters)
        if join == "product":
            self.encoder = _TowerProduct(features_spec, (*layers, size))
        elif join == "concat":
            self.encoder = networks.create_feed_forward_common_tower_network(
                features_spec, layers, layers, layers, output_dim=size
            )
        else:
            self.encoder = encoding_network.EncodingNetwork(features_spec, fc_layer_params=(*layers, size))
        self.head = tf.Variable(tf.zeros([num_arms if join == "none" else 1, size]), name="head")

    def create_variables(self):
        self.encoder.create_variables()

    @property
    def trainable_variables(self):
        return [*self.encoder.trainable_variables, self.head]

    def predict(self, encoding):
        if encoding.shape.rank == 3:
            return tf.linalg.matvec(encoding, self.head[0])
        return tf.matmul(encoding, self.head, transpose_b=True)

    def __call__(self, features, step_type=None, training=False):
        return self.predict(self.encoder(features)[0]), ()


def _find_join(features_spec, parameters):
    """Return how the features of context and arm meet, as in `Scorer`."""
    if isinstance(features_spec, dict):
        return "product" if parameters.network == "dot_product" else "concat"
    if parameters.network == "dot_product":
        raise ValueError("network must be 'common_tower' where arms have no features, got 'dot_product'")
    return "none"


def _make_reward_network(features_spec, num_arms, parameters):
    layers, join = parameters.layers, _find_join(features_spec, parameters)
    if join == "product":
        return networks.create_feed_forward_dot_product_network(features_spec, layers, layers, tf.nn.elu)
    if join == "concat":
        return networks.create_feed_forward_common_tower_network(features_spec, layers, layers, layers)
    return q_network.QNetwork(features_spec, _make_action_spec(num_arms), fc_layer_params=layers)


def _make_action_spec(num_arms):
    return tensor_spec.BoundedTensorSpec([], tf.int32, 0, num_arms - 1, "action")


def _make_trainer(features_spec, num_arms, network, optimizer):
    return greedy_reward_prediction_agent.GreedyRewardPredictionAgent(
        ts.time_step_spec(features_spec),
        _make_action_spec(num_arms),
        network,
        optimizer,
        accepts_per_arm_features=isinstance(features_spec, dict),
        enable_summaries=False,
        train_step_counter=make_counter("train_step"),
    )


class _Adam(tf.keras.optimizers.Adam):
    """Adam that adds gradients up over replicas only where there are several.

    To do so, TensorFlow registers a function for the rest of the process, and this one keeps the graph and its data.
    """

    def aggregate_gradients(self, grads_and_vars):
        alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
        return list(grads_and_vars) if alone else super().aggregate_gradients(grads_and_vars)


def _make_adam(parameters, variables):
    """Make Adam with decoupled decay of the kernels (Loshchilov and Hutter 2019, algorithm 2), and its variables.

    Inside a graph's loop they cannot be made. Biases do not decay: they hold the mean of the rewards.
    """
    optimizer = _Adam(parameters.learning_rate, weight_decay=parameters.weight_decay or None)
    optimizer.exclude_from_weight_decay([variable for variable in variables if variable.shape.rank == 1])
    optimizer.build(variables)
    return optimizer
