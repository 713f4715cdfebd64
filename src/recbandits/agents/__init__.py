"""Bandit agents of TF-Agents by name, with exact exploration probabilities.

- `make_agent`: an agent, made of a name of `NAMES` or of parameters, for an environment.
- Parameters: `LinUCB` and `LinTS` of linear agents; `EpsilonGreedy`, `Boltzmann` and `SquareCB` of agents with a reward
  network and an exploration around it; `NeuralLinUCB` of LinUCB on an encoding that a network learns; `Exp3Mixture` of
  EXP3 over linear agents; `Uniform`, `BestFixedArm` and `Oracle` of baselines.
- `BanditAgent`, `ScoringPolicy`: the TF-Agents agent and policy behind all of them, for models and scores of your own.
- `ranking`: agents that fill slates.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "factory": "make_agent",
        "parameters": "LinUCB LinTS EpsilonGreedy Boltzmann SquareCB NeuralLinUCB Exp3Mixture Uniform BestFixedArm "
        "Oracle NAMES",
        "agent": "BanditAgent ScoringPolicy",
    },
)
