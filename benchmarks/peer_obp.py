"""Open Bandit Pipeline's estimators on arrays: IPS, SNIPS and DR of decisions, and those of slates.

Its release pins torch 1.12 and Python below 3.11. The estimators on NumPy arrays and the linear policies need neither:
torch is to them a name in the type hints of a helper. So their modules are loaded alone, from the release as it is,
with today's NumPy.
"""

from benchmarks.peer import Peer

REQUIREMENTS = [["numpy", "pandas", "scipy", "scikit-learn"], ["--no-deps", "obp==0.5.7"]]

STUBS = """
import importlib.util, json, sys, time, types
import numpy as np

folder = importlib.util.find_spec("obp").submodule_search_locations[0]
for name in ("obp", "obp.ope", "obp.policy"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [folder + name.removeprefix("obp").replace(".", "/")]
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.Tensor = torch.tensor = object
"""

PREAMBLE = """
from obp.ope import estimators, estimators_slate

arrays = dict(np.load(sys.argv[1]))
"""

PROGRAM = """
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
    values_end = time.perf_counter()
    for estimator, columns in contenders:
        estimator.estimate_interval(**columns, n_bootstrap_samples=100, random_state=0)
    intervals_end = time.perf_counter()
    print(json.dumps([values_end - start, intervals_end - start, values]), flush=True)
"""


SLATES = """
n, slots, items = arrays["q"].shape
behaviour, target = (arrays[name].cumprod(axis=1) for name in ("propensity", "target_propensity"))
log = {"slate_id": np.repeat(np.arange(n), slots), "position": np.tile(np.arange(slots), n)}
log |= {"action": arrays["slate"].ravel(), "reward": arrays["reward"].ravel()}
log |= {"pscore": behaviour[:, -1].repeat(slots), "evaluation_policy_pscore": target[:, -1].repeat(slots)}
log |= {"pscore_cascade": behaviour.ravel(), "evaluation_policy_pscore_cascade": target.ravel()}
log |= {"pscore_item_position": arrays["position_propensity"].ravel()}
log |= {"evaluation_policy_pscore_item_position": arrays["target_position"].ravel()}
log |= {"q_hat": arrays["q"].ravel(), "evaluation_policy_action_dist": arrays["target_conditional"].ravel()}
contenders = {
    "IPS": estimators_slate.SlateStandardIPS(len_list=slots),
    "SNIPS": estimators_slate.SelfNormalizedSlateStandardIPS(len_list=slots),
    "IIPS": estimators_slate.SlateIndependentIPS(len_list=slots),
    "SNIIPS": estimators_slate.SelfNormalizedSlateIndependentIPS(len_list=slots),
    "RIPS": estimators_slate.SlateRewardInteractionIPS(len_list=slots),
    "SNRIPS": estimators_slate.SelfNormalizedSlateRewardInteractionIPS(len_list=slots),
    "cascade-DR": estimators_slate.SlateCascadeDoublyRobust(len_list=slots, n_unique_action=items),
}
for _ in sys.stdin:
    start = time.perf_counter()
    values = {name: float(estimator.estimate_policy_value(**log)) for name, estimator in contenders.items()}
    print(json.dumps([time.perf_counter() - start, values]), flush=True)
"""


def open_bandit_pipeline(arrays):
    """Contender whose every call gives seconds for the values, seconds for values and intervals, and the values."""
    return Peer("obp", REQUIREMENTS, STUBS + PREAMBLE + PROGRAM, arrays)


def open_bandit_pipeline_slates(arrays):
    """Contender whose every call gives seconds for its seven estimates of slates, and these by name."""
    return Peer("obp", REQUIREMENTS, STUBS + PREAMBLE + SLATES, arrays)
