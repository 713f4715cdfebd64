"""Contextual bandits of other projects, which serve and learn from a stream of observations batch by batch."""

from benchmarks import peer_obp
from benchmarks.peer import Peer

LOOP = """
import json, sys, time
import numpy as np

stream = np.load(sys.argv[1])
observations, rewards = stream["observations"].astype("float64"), stream["rewards"].astype("float64")
size, arms = observations.shape[2], rewards.shape[2]
alpha, tikhonov, seconds = map(float, sys.argv[2:5])
{agent}
for number, _ in enumerate(sys.stdin):
    steps = int(sys.argv[5]) if number == 0 else 0
    agent, interactions, regret, start = Agent(), 0, 0.0, time.perf_counter()
    for step, (x, reward) in enumerate(zip(observations, rewards), 1):
        action = agent.serve(x)
        action_reward = reward[np.arange(len(x)), action]
        agent.learn(x, action, action_reward)
        regret += (reward.max(axis=1) - action_reward).sum()
        interactions += len(x)
        if step == steps if steps else time.perf_counter() - start > seconds:
            break
    print(json.dumps([interactions / (time.perf_counter() - start), regret / interactions]), flush=True)
"""

CONTEXTUALBANDITS = """
from contextualbandits.online import LinUCB

class Agent:
    def __init__(self):
        self.policy = LinUCB(
            nchoices=arms, alpha=alpha, lambda_=tikhonov, fit_intercept=False, beta_prior=None,
            ucb_from_empty=True, random_state=1, njobs=1,
        )

    def serve(self, x):
        return self.policy.predict(x).astype(int)

    def learn(self, x, action, reward):
        self.policy.partial_fit(x, action, reward)
"""

# A fit on zeros changes no statistics. Without it, the inverse matrix of an arm that was not played is right only for a
# ridge penalty of 1, and most arms are never played.
MABWISER = """
from mabwiser.mab import MAB, LearningPolicy

class Agent:
    def __init__(self):
        self.policy = MAB(list(range(arms)), LearningPolicy.LinUCB(alpha=alpha, l2_lambda=tikhonov), n_jobs=1)
        self.policy.fit(np.arange(arms), np.zeros(arms), np.zeros((arms, size)))

    def serve(self, x):
        return np.array(self.policy.predict(x))

    def learn(self, x, action, reward):
        self.policy.partial_fit(action, reward, x)
"""

# The options are the best of those tried on the stream of 20 arms and batch 8. Costs are negative rewards.
VOWPAL_WABBIT = """
from vowpalwabbit import Workspace

class Agent:
    def __init__(self):
        self.policy = Workspace("--cb_explore_adf -q ua --squarecb --gamma_scale 30 -l 10", quiet=True)
        self.rng = np.random.default_rng(0)
        self.lines = [f"|a {arm}" for arm in range(arms)]

    def serve(self, x):
        users = ["shared |u " + " ".join(f"{column}:{value:.6g}" for column, value in enumerate(row)) for row in x]
        self.examples = [[user, *self.lines] for user in users]
        probabilities = np.array([self.policy.predict(example) for example in self.examples])
        cumulative = probabilities.cumsum(axis=1)
        action = (cumulative <= self.rng.random((len(x), 1)) * cumulative[:, -1:]).sum(axis=1)
        self.propensity = probabilities[np.arange(len(x)), action]
        return action

    def learn(self, x, action, reward):
        for example, arm, value, propensity in zip(self.examples, action, reward, self.propensity):
            example[1 + arm] = f"0:{-value:.6g}:{propensity:.6g} {self.lines[arm]}"
            self.policy.learn(example)
"""

# Its ridge penalty is 1. Contexts divided by the root of another penalty give the scores of that penalty.
OPEN_BANDIT_PIPELINE = """
from obp.policy.linear import LinUCB

class Agent:
    def __init__(self):
        self.policy = LinUCB(size, arms, batch_size=observations.shape[1], random_state=1, epsilon=alpha)

    def serve(self, x):
        self.contexts = x[:, None] / tikhonov**0.5
        return np.array([self.policy.select_action(context)[0] for context in self.contexts])

    def learn(self, x, action, reward):
        for arm, value, context in zip(action, reward, self.contexts):
            self.policy.update_params(arm, value, context)
"""

PEERS = {  # environment, what is installed there, and program of each
    "contextualbandits": (
        "contextualbandits",
        [["contextualbandits==0.3.30", "numpy", "pandas", "scipy", "joblib", "scikit-learn", "setuptools"]],
        CONTEXTUALBANDITS,
    ),
    "MABWiser": ("mabwiser", [["mabwiser==2.7.4"]], MABWISER),
    "Open Bandit Pipeline": ("obp", peer_obp.REQUIREMENTS, peer_obp.STUBS + OPEN_BANDIT_PIPELINE),
    "Vowpal Wabbit": ("vowpalwabbit", [["vowpalwabbit==9.11.9", "numpy"]], VOWPAL_WABBIT),
}


def start_peers(observations, rewards, parameters, steps, seconds=2.0):
    """Start all of them on a stream.

    Args:
      observations: float [steps, batch, size].
      rewards: float [steps, batch, arms].
      parameters: `LinUCB`
      steps: batches of the first call.
      seconds: of the other calls.

    Returns:
      dict from name to `Peer`, whose every call starts anew and gives interactions per second and mean regret.
    """
    arguments = [str(value) for value in (parameters.alpha, parameters.tikhonov, seconds, steps)]
    arrays = {"observations": observations, "rewards": rewards}
    return {
        name: Peer(environment, requirements, LOOP.replace("{agent}", program), arrays, arguments)
        for name, (environment, requirements, program) in PEERS.items()
    }
