"""contextualbandits' LinUCB on a stream of observations; the package comes as source only and needs a compiler."""

from benchmarks.peer import Peer

REQUIREMENTS = [["contextualbandits==0.3.30", "numpy", "pandas", "scipy", "joblib", "scikit-learn", "setuptools"]]

PROGRAM = """
import json, sys, time
import numpy as np
from contextualbandits.online import LinUCB

stream = np.load(sys.argv[1])
observations, rewards = stream["observations"].astype("float64"), stream["rewards"].astype("float64")
alpha, tikhonov, limit = map(float, sys.argv[2:])
for _ in sys.stdin:
    agent = LinUCB(
        nchoices=rewards.shape[2], alpha=alpha, lambda_=tikhonov, fit_intercept=False, beta_prior=None,
        ucb_from_empty=True, random_state=1, njobs=1,
    )
    start, interactions, total_reward = time.perf_counter(), 0, 0.0
    for x, reward in zip(observations, rewards):
        action = agent.predict(x).astype(int)
        action_reward = reward[np.arange(len(x)), action]
        agent.partial_fit(x, action, action_reward)
        total_reward += action_reward.sum()
        interactions += len(x)
        if time.perf_counter() - start > limit:
            break
    print(json.dumps(interactions / (time.perf_counter() - start)), flush=True)
"""


def contextualbandits(observations, rewards, parameters, limit=2.0):
    """Contender whose every call gives interactions per second."""
    arguments = [str(parameters.alpha), str(parameters.tikhonov), str(limit)]
    arrays = {"observations": observations, "rewards": rewards}
    return Peer("contextualbandits", REQUIREMENTS, PROGRAM, arrays, arguments)
