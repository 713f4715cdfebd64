"""A model that learns no more: its constants, and the arithmetic of its scores without TF-Agents."""

from typing import NamedTuple

import numpy as np

_TOWERS = ("context", "arm", "head")


class Scorer(NamedTuple):
    """Dense layers from an observation to scores.

    The context goes through one tower and, where arms have features, each arm through another; the two results are
    joined, and the head makes a score of them. A linear model is a head alone.

    Attributes:
      join: "none" (arms without features), "concat" or "product" (element by element).
      activation: "relu" or "elu", after every layer but the last of the head.
      context: tuple of (kernel float32 [in, out], bias float32 [out]).
      arm: likewise.
      head: likewise; its last layer has an output for each arm, or one for all where arms have features.
    """

    join: str
    activation: str
    context: tuple
    arm: tuple
    head: tuple

    def scores(self, context, per_arm=None, activate=None):
        """Score arms.

        Args:
          context: float32 [n, G], array or tensor.
          per_arm: where arms have features, float32 [n, k, D], or [n, D] for one arm each.
          activate: the activation, where it has to be another than NumPy's: `tf.nn.relu` for tensors.

        Returns:
          float32 [n, arms], [n, k] or [n], of the kind of `context`.
        """
        activate = activate or _ACTIVATIONS[self.activation]
        context = _through(self.context, context, activate)
        if self.join == "none":
            return _dense(self.head, context, activate)
        arm = _through(self.arm, per_arm, activate)
        if self.join == "product":
            return _dense(self.head, _beside(context, arm) * arm, activate)[..., 0]
        (kernel, bias), *rest = self.head
        size = context.shape[-1]  # the first layer takes the context once a row, not once an arm
        value = _beside(context @ kernel[:size] + bias, arm) + arm @ kernel[size:]
        return (_dense(rest, activate(value), activate) if rest else value)[..., 0]

    def save(self, file):
        """Write it as an .npz."""
        arrays = {"join": np.array(self.join), "activation": np.array(self.activation)}
        for tower in _TOWERS:
            for number, (kernel, bias) in enumerate(getattr(self, tower)):
                arrays |= {f"{tower}_{number}_kernel": kernel, f"{tower}_{number}_bias": bias}
        np.savez(file, **arrays)

    @classmethod
    def load(cls, file):
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            towers = {}
            for tower in _TOWERS:
                count = sum(name.startswith(f"{tower}_") for name in arrays) // 2
                towers[tower] = tuple(
                    (arrays[f"{tower}_{number}_kernel"], arrays[f"{tower}_{number}_bias"]) for number in range(count)
                )
            return cls(str(arrays["join"]), str(arrays["activation"]), **towers)


def make_scorer(join, depth, variables, head=()):
    """Make the scorer of a network.

    Args:
      join: as in `Scorer`.
      depth: layers of the tower of the context, and of that of the arms; not read without a join.
      variables: of the network, kernel and bias in turn: context, arm, head.
      head: layers (kernel, bias) that come after those.

    Returns:
      Scorer
    """
    values = [variable.numpy() for variable in variables]
    layers = tuple(zip(values[::2], values[1::2], strict=True))
    if join == "none":
        return Scorer(join, "relu", (), (), (*layers, *head))
    context, arm, rest = layers[:depth], layers[depth : 2 * depth], layers[2 * depth :]
    return Scorer(join, "elu" if join == "product" else "relu", context, arm, (*rest, *head))


def linear_head(theta):
    """The layer of linear models theta float32 [models, size]."""
    return np.ascontiguousarray(np.asarray(theta).T), np.zeros(len(theta), np.float32)


def _relu(x):
    return np.maximum(x, 0)


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


_ACTIVATIONS = {"relu": _relu, "elu": _elu}


def _through(tower, x, activate):
    for kernel, bias in tower:
        x = activate(x @ kernel + bias)
    return x


def _dense(tower, x, activate):
    *hidden, (kernel, bias) = tower
    return _through(hidden, x, activate) @ kernel + bias


def _beside(context, arm):
    """The context [n, size] in a form that broadcasts over arms [n, k, size]."""
    return context[:, None, :] if len(arm.shape) == 3 else context
