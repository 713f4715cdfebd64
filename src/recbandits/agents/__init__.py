"""Bandit agents of TF-Agents by name, with exact exploration probabilities.

- `make_agent`: an agent, made of a name or of parameters, for an environment.
- `LinUCB`, `LinTS`: parameters of linear agents.
- `EpsilonGreedy`, `Boltzmann`, `SquareCB`: parameters of agents with a reward network and an exploration around it.
- `NeuralLinUCB`: parameters of LinUCB on an encoding that a network learns.
- `Exp3Mixture`: parameters of EXP3 over linear agents.
- `Uniform`, `BestFixedArm`, `Oracle`: parameters of baselines.
- `NAMES`: class of the parameters of every name.
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
