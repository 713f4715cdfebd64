"""Open Bandit Pipeline's IPS, SNIPS and DR on given arrays.

Its release pins torch 1.12 and Python below 3.11. The estimators on NumPy arrays need neither: torch is to them a name
in the type hints of a helper. So their module is loaded alone, from the release as it is, with today's NumPy.
"""

from benchmarks.peer import Peer

REQUIREMENTS = [["numpy", "pandas", "scipy", "scikit-learn"], ["--no-deps", "obp==0.5.7"]]

PROGRAM = """
import importlib.util, json, sys, time, types
import numpy as np

folder = importlib.util.find_spec("obp").submodule_search_locations[0]
for name in ("obp", "obp.ope"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [folder + name.removeprefix("obp").replace(".", "/")]
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.Tensor = torch.tensor = object
from obp.ope import estimators

arrays = dict(np.load(sys.argv[1]))
log = {name: arrays[name] for name in ("reward", "action")}
log |= {"pscore": arrays["propensity"], "action_dist": arrays["probabilities"][:, :, None]}
log["position"] = np.zeros(len(log["action"]), int)
model = {"estimated_rewards_by_reg_model": arrays["q"][:, :, None]}
contenders = [
    (estimators.InverseProbabilityWeighting(), log),
    (estimators.SelfNormalizedInverseProbabilityWeighting(), log),
    (estimators.DoublyRobust(), log | model),
]
for _ in sys.stdin:
    start = time.perf_counter()
    values = [estimator.estimate_policy_value(**columns) for estimator, columns in contenders]
    estimated = time.perf_counter()
    for estimator, columns in contenders:
        estimator.estimate_interval(**columns, n_bootstrap_samples=100, random_state=0)
    bounded = time.perf_counter()
    print(json.dumps([estimated - start, bounded - start, values]), flush=True)
"""


def open_bandit_pipeline(arrays):
    """Contender whose every call gives seconds for the values, seconds for values and intervals, and the values."""
    return Peer("obp", REQUIREMENTS, PROGRAM, arrays)
