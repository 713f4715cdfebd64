"""Reward networks: TF-Agents' networks and its reward-prediction agent, and LinUCB on a learnt encoding."""

from recbandits.tf import tf

import numpy as np
from tf_agents.bandits.agents import greedy_reward_prediction_agent
from tf_agents.bandits.networks import global_and_arm_feature_network as networks
from tf_agents.networks import encoding_network, q_network
from tf_agents.policies import utils
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from recbandits.agents.agent import counter
from recbandits.agents.linear import LinearModel
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.serving.scorer import linear_head, make_scorer


class RewardNetwork(tf.Module):
    """A network that predicts the reward of every arm, trained by TF-Agents' `GreedyRewardPredictionAgent`.

    Args:
      features_spec: spec of the features, a tensor or a dict of `global` and `per_arm`.
      num_actions: arms.
      layers: units of the hidden layers; with per-arm features, of each tower and of the common one.
      learning_rate: of Adam.
      weight_decay: of Adam, per unit of learning rate; 0 for none.
      seed: of the initial weights.
      network: with per-arm features, how the towers of context and arm meet: "common_tower" (a third tower reads both)
        or "dot_product".
      trainer: function of (network, optimizer) giving another TF-Agents agent that trains the network; None for that.

    Raises:
      ValueError: a dot product of anything but a context and arms.
    """

    def __init__(
        self,
        features_spec,
        num_actions,
        layers,
        learning_rate,
        weight_decay,
        seed,
        network="common_tower",
        trainer=None,
    ):
        super().__init__(name="reward_network")
        self._join, self._depth = _join(network, features_spec), len(layers)
        action_spec = tensor_spec.BoundedTensorSpec([], tf.int32, 0, num_actions - 1, "action")
        if self._join == "product":
            self.network = networks.create_feed_forward_dot_product_network(features_spec, layers, layers, tf.nn.elu)
        elif self._join == "concat":
            self.network = networks.create_feed_forward_common_tower_network(features_spec, layers, layers, layers)
        else:
            self.network = q_network.QNetwork(features_spec, action_spec, fc_layer_params=layers)
        self.network.create_variables()
        initialise(self.network.trainable_variables, seed)
        optimizer = adam(learning_rate, weight_decay, self.network.trainable_variables)
        self._optimizer_state = list(optimizer.variables)
        if trainer is not None:
            self._trainer = trainer(self.network, optimizer)
            return
        self._trainer = greedy_reward_prediction_agent.GreedyRewardPredictionAgent(
            ts.time_step_spec(features_spec),
            action_spec,
            self.network,
            optimizer,
            accepts_per_arm_features=isinstance(features_spec, dict),
            enable_summaries=False,
            train_step_counter=counter("train_step"),
        )

    def scores(self, features):
        """Predicted reward of every arm, float [batch, arms]."""
        return self.network(features)[0]

    def scorer(self):
        """The network as a `Scorer`."""
        size = self.network.trainable_variables[-1].shape[0]
        total = [linear_head(np.ones((1, size), np.float32))] if self._join == "product" else []
        return make_scorer(self._join, self._depth, self.network.trainable_variables, total)

    def learn(self, features, action, reward, weights=None):
        """One gradient step on the (weighted) mean squared error of the chosen arms; returns the loss."""
        info = utils.PolicyInfo()
        if isinstance(features, dict):
            info = utils.PerArmPolicyInfo(chosen_arm_features=features[PER_ARM])
            features = {GLOBAL: features[GLOBAL]}
        experience = trajectory.single_step(features, action, info, reward, tf.ones_like(reward))
        return self._trainer.train(tf.nest.map_structure(lambda x: x[:, None], experience), _shared(weights)).loss


class EncodedLinearModel(tf.Module):
    """A network learns an encoding in the first batches; then it is frozen and a `LinearModel` learns on it.

    The idea is that of Zhou et al. 2020, "Neural Contextual Bandits with UCB-based Exploration"; freezing the
    encoding is TF-Agents' simplification. TF-Agents' own NeuralLinUCB counts its training steps in a variable that
    all agents of a process share, and unrolls one solver per arm; hence this one.

    Args:
      features_spec: spec of the features, a tensor or a dict of `global` and `per_arm`.
      num_actions: arms.
      layers: units of the hidden layers before the encoding.
      encoding: length of the encoding.
      pretrain_steps: batches that train the network.
      tikhonov: ridge penalty of the linear model.
      learning_rate: of Adam.
      weight_decay: of Adam, per unit of learning rate; 0 for none.
      seed: of the initial weights.
      network: as in `RewardNetwork`; with "dot_product" the encoding is the product of the towers, element by element.
    """

    def __init__(
        self,
        features_spec,
        num_actions,
        layers,
        encoding,
        pretrain_steps,
        tikhonov,
        learning_rate,
        weight_decay,
        seed,
        network="common_tower",
    ):
        super().__init__(name="encoded_linear_model")
        models = 1 if isinstance(features_spec, dict) else num_actions
        self._join = _join(network, features_spec)
        self._depth = len(layers) + (self._join == "product")
        if self._join == "product":
            self._encoder = _TowerProduct(features_spec, (*layers, encoding))
        elif self._join == "concat":
            self._encoder = networks.create_feed_forward_common_tower_network(
                features_spec, layers, layers, layers, output_dim=encoding
            )
        else:
            self._encoder = encoding_network.EncodingNetwork(features_spec, fc_layer_params=(*layers, encoding))
        self._encoder.create_variables()
        self._head = tf.Variable(tf.zeros([models, encoding]), name="head")
        self.network_variables = [*self._encoder.trainable_variables, self._head]
        initialise(self.network_variables, seed)
        self._optimizer = adam(learning_rate, weight_decay, self.network_variables)
        self._optimizer_state = list(self._optimizer.variables)
        self._pretrain_left = counter("pretrain_left", pretrain_steps)
        self.linear = LinearModel(encoding, models, tikhonov)

    def encode(self, features):
        """Encoding [batch, size], or [batch, arms, size] with per-arm features."""
        return self._encoder(features)[0]

    def estimate(self, features):
        """Mean and width float32 [batch, arms] as `LinearModel.estimate`; before the switch the width is 0."""
        encoding = self.encode(features)

        def by_network():
            mean = self._predict(encoding)
            return mean, tf.zeros_like(mean)

        return tf.cond(self.pretraining, by_network, lambda: self.linear.estimate(encoding))

    def scorer(self):
        """Encoder and present head as a `Scorer`."""
        theta = self._head if self.pretraining else self.linear.theta
        return make_scorer(self._join, self._depth, self._encoder.trainable_variables, [linear_head(theta.numpy())])

    @property
    def pretraining(self):
        """Bool tensor: True while the network learns."""
        return self._pretrain_left > 0

    def learn(self, features, action, reward, weights=None, network=None):
        """One batch for the network or for the linear model.

        Args:
          features: of the chosen arms.
          action: int32 [batch].
          reward: float [batch].
          weights: float [batch] of the squared errors; None for 1.
          network: True for the network, False to freeze it and train the linear model; None for the network as long as
            `pretrain_steps` says.

        Returns:
          Mean squared error of the batch before it was learnt.
        """
        if isinstance(features, dict):
            features = {GLOBAL: features[GLOBAL], PER_ARM: features[PER_ARM][:, None, :]}
        batch = features, action, reward, weights
        if network is None:
            loss = tf.cond(self.pretraining, lambda: self._train_network(*batch), lambda: self._train_linear(*batch))
            self._pretrain_left.assign(tf.maximum(self._pretrain_left - 1, 0))
            return loss
        self._pretrain_left.assign(int(network))
        return self._train_network(*batch) if network else self._train_linear(*batch)

    def _predict(self, encoding):
        if encoding.shape.rank == 3:
            return tf.linalg.matvec(encoding, self._head[0])
        return tf.matmul(encoding, self._head, transpose_b=True)

    def _train_network(self, features, action, reward, weights):
        with tf.GradientTape() as tape:
            predicted = self._predict(self.encode(features))
            predicted = predicted[:, 0] if isinstance(features, dict) else tf.gather(predicted, action, batch_dims=1)
            loss = tf.reduce_mean(tf.square(reward - predicted) * _shared(weights))
        gradients = tape.gradient(loss, self.network_variables)
        self._optimizer.apply_gradients(zip(gradients, self.network_variables, strict=True))
        return loss

    def _train_linear(self, features, action, reward, weights):
        encoding = self.encode(features)
        x = encoding[:, 0, :] if isinstance(features, dict) else encoding
        return self.linear.update(x, action, reward, weights)


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
        """Make the variables of both towers."""
        for tower in self._towers:
            tower.create_variables()

    def __call__(self, features):
        """Encoding [batch, arms, size], and no state, as TF-Agents' networks give it."""
        context, arms = (tower(features[part])[0] for tower, part in zip(self._towers, (GLOBAL, PER_ARM), strict=True))
        return context[:, None, :] * arms, ()


def _join(network, features_spec):
    """How the features meet: "none" (there is a context alone), "concat" or "product", as in `Scorer`."""
    per_arm = isinstance(features_spec, dict)
    if network == "dot_product" and not per_arm:
        raise ValueError("network must be 'common_tower' where arms have no features, got 'dot_product'")
    return "none" if not per_arm else "product" if network == "dot_product" else "concat"


def _shared(weights):
    """Weights of a replica's rows: the gradients of all replicas are added, and their sum shall be that of the mean."""
    return (1.0 if weights is None else weights) / tf.distribute.get_strategy().num_replicas_in_sync


def adam(learning_rate, weight_decay, variables):
    """Adam with decoupled decay of the kernels (Loshchilov and Hutter 2019, algorithm 2), its slots made now.

    Inside a graph's loop it is too late for slots. Biases do not decay: they hold the mean of the rewards.
    """
    optimizer = tf.keras.optimizers.Adam(learning_rate, weight_decay=weight_decay or None)
    optimizer.exclude_from_weight_decay([variable for variable in variables if variable.shape.rank == 1])
    optimizer.build(variables)
    return optimizer


def initialise(variables, seed):
    """Kernels He-normal, biases zero, from a generator of our own: weights depend on no global seed."""
    generator = np.random.default_rng(seed)
    for variable in variables:
        value = np.zeros(variable.shape)
        if variable.shape.rank > 1:
            value = generator.normal(scale=np.sqrt(2.0 / variable.shape[-2]), size=variable.shape)
        variable.assign(value.astype(np.float32))
