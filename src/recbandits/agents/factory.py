"""Agents by name: the one place where a name and its parameters become a TF-Agents agent."""

from recbandits.tf import tf

from recbandits import exploration
from recbandits.agents import parameters
from recbandits.agents.agent import BanditAgent
from recbandits.agents.linear import LinearModel, arm_inputs, chosen_inputs, scorers
from recbandits.agents.mixture import Exp3MixtureAgent
from recbandits.agents.neural import EncodedLinearModel, RewardNetwork
from recbandits.agents.parameters import NAMES
from recbandits.agents.policy import no_probabilities
from recbandits.agents.ranking import builders
from recbandits.agents.ranking.parameters import RANKING_NAMES
from recbandits.agents.seeds import SeedStream
from recbandits.environments.base import GLOBAL, PER_ARM, Environment


def make_agent(agent, environment, seed=0, **values):
    """Make an agent for an environment.

    Args:
      agent: a name of `NAMES` with its parameters in `values`, or parameters such as `LinUCB(alpha=0.5)`; for slates a
        name of `RANKING_NAMES`, or parameters such as `Ranking(temperature=0.5)`.
      environment: anything with TF-Agents' `time_step_spec()` and `action_spec()`; the baselines that know more than an
        agent may (best fixed arm, oracle, popularity) need an environment of this package. For slates, the spec of the
        reward says what kind of feedback there is to learn from.
      seed: of initial weights and exploration.
      **values: parameters by name.

    Returns:
      A TF-Agents agent with its `parameters`; `policy` serves, `collect_policy` explores, `train` learns. The EXP3
      mixture has one policy for both: it never stops drawing which of its agents to ask.

    Raises:
      ValueError: unknown name or parameter, a value outside its limits, an environment that does not fit.
    """
    if isinstance(agent, str):
        agent = _parameters(agent, values)
    elif values:
        raise ValueError(f"parameters must come with a name, got {agent} and {sorted(values)}")
    elif type(agent) not in _BUILDERS:
        raise ValueError(f"agent must be a name ({', '.join(_NAMES)}) or parameters of one, got {agent!r}")
    made = _BUILDERS[type(agent)](agent, environment, seed)
    made.parameters = agent
    return made


def _parameters(name, values):
    if name not in _NAMES:
        raise ValueError(f"agent must be one of {', '.join(_NAMES)}, got {name!r}")
    kind = _NAMES[name]
    known = kind.__dataclass_fields__
    for value in values:
        if value not in known:
            raise ValueError(f"{name} has no parameter {value!r}, it has {', '.join(known) or 'none'}")
    return kind(**values)


def _specs(environment):
    """(time_step_spec, action_spec) of an environment, then the features spec and the number of arms."""
    time_step_spec, action_spec = environment.time_step_spec(), environment.action_spec()
    if tf.nest.is_nested(action_spec) or action_spec.shape.rank or action_spec.dtype != tf.int32 or action_spec.minimum:
        raise ValueError(f"actions must be single int32 numbers from 0, got {action_spec}")
    observation, arms = time_step_spec.observation, int(action_spec.maximum) + 1
    features = observation[0] if isinstance(observation, tuple) else observation
    parts = features if isinstance(features, dict) else {GLOBAL: features}
    shapes = {name: part.shape.as_list() for name, part in parts.items()}
    vector = len(shapes.get(GLOBAL, [])) == 1 and shapes.keys() <= {GLOBAL, PER_ARM}
    table = PER_ARM not in shapes or (len(shapes[PER_ARM]) == 2 and shapes[PER_ARM][0] == arms)
    if not (vector and table):
        expected = f"{GLOBAL!r} [context], or that and {PER_ARM!r} [{arms}, features]"
        raise ValueError(f"the shape of an observation must be {expected}, got {shapes}")
    return (time_step_spec, action_spec), features, arms


def _linear(agent, environment, seed, number=0):
    specs, features, num_actions = _specs(environment)
    shared = isinstance(features, dict)
    size = sum(spec.shape[-1] for spec in (features.values() if shared else [features]))
    model = LinearModel(size, 1 if shared else num_actions, agent.tikhonov, agent.gamma)

    mean, optimistic = scorers(model, agent.alpha)

    def sampled(features, seed):
        estimate, width = model.estimate(arm_inputs(features))
        return estimate + agent.alpha * width * tf.random.stateless_normal(tf.shape(width), seed)

    def learn(features, action, reward, weights):
        return model.update(chosen_inputs(features), action, reward, weights)

    options = {"learn": learn, "model": model, "number": number}
    if isinstance(agent, parameters.LinTS):
        return BanditAgent(*specs, seed, mean, sampled, marginal=no_probabilities("LinTS"), **options)
    return BanditAgent(*specs, seed, mean, optimistic, **options)


def _network(agent, environment, seed):
    specs, features, num_actions = _specs(environment)
    model = RewardNetwork(
        features, num_actions, agent.layers, agent.learning_rate, agent.weight_decay, seed, agent.network
    )

    def score(features, seed):
        return model.scores(features)

    return BanditAgent(*specs, seed, score, explore=agent.explore, learn=model.learn, model=model)


def _neural_linucb(agent, environment, seed):
    specs, features, num_actions = _specs(environment)
    model = EncodedLinearModel(
        features,
        num_actions,
        agent.layers,
        agent.encoding,
        agent.pretrain_steps,
        agent.tikhonov,
        agent.learning_rate,
        agent.weight_decay,
        seed,
        agent.network,
    )

    def mean(features, seed):
        return model.estimate(features)[0]

    def optimistic(features, seed):
        estimate, width = model.estimate(features)
        return estimate + agent.alpha * width

    def explore(scores, mask):
        epsilon = tf.where(model.pretraining, agent.epsilon, 0.0)
        return exploration.epsilon_greedy(scores, mask, epsilon)

    return BanditAgent(*specs, seed, mean, optimistic, explore, model.learn, model)


def _mixture(agent, environment, seed):
    members = [_linear(member, environment, seed, number) for number, member in enumerate(agent.agents)]
    return Exp3MixtureAgent(members, SeedStream(seed, 2 * len(members)), agent.gamma, agent.reward_range)


def _uniform(agent, environment, seed):
    specs, _, num_actions = _specs(environment)

    def uniforms(features, seed):
        return tf.random.stateless_uniform([tf.shape(tf.nest.flatten(features)[0])[0], num_actions], seed)

    def marginal(scores, mask):
        return exploration.epsilon_greedy(scores, mask, 1.0)

    return BanditAgent(*specs, seed, uniforms, marginal=marginal)


def _best_fixed_arm(agent, environment, seed):
    _check_ours(agent, environment)
    return BanditAgent(*_specs(environment)[0], seed, lambda features, seed: environment.batch().unpersonalised)


def _oracle(agent, environment, seed):
    _check_ours(agent, environment)
    return BanditAgent(*_specs(environment)[0], seed, lambda features, seed: environment.batch().expected_reward)


def _check_ours(agent, environment):
    if not isinstance(environment, Environment):
        name = type(agent).__name__
        raise ValueError(f"{name} needs an environment of recbandits, which knows its rewards, got {environment!r}")


_BUILDERS = {
    parameters.LinUCB: _linear,
    parameters.LinTS: _linear,
    parameters.EpsilonGreedy: _network,
    parameters.Boltzmann: _network,
    parameters.SquareCB: _network,
    parameters.NeuralLinUCB: _neural_linucb,
    parameters.Exp3Mixture: _mixture,
    parameters.Uniform: _uniform,
    parameters.BestFixedArm: _best_fixed_arm,
    parameters.Oracle: _oracle,
    **builders.BUILDERS,
}
_NAMES = NAMES | RANKING_NAMES
