"""The constants of a trained model, and the arithmetic of its scores without TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

JOINS = ("none", "concat", "product")
_TOWERS = ("context", "arm", "head")


class Scorer(NamedTuple):
    """Dense layers from an observation to scores.

    The context goes through one tower and, where arms have features, each arm through another; the two results are
    joined, and the head makes a score of them. A linear model is a head alone.

    Attributes:
      join: "none" (arms without features), "concat" or "product" (element by element).
      activation: "relu" or "elu", after every layer but the last of the head.
      context, arm, head: tuples of (kernel float32 [in, out], bias float32 [out]). The last layer of the head has an
        output for each arm, or one for all where arms have features.
    """

    join: str
    activation: str
    context: tuple
    arm: tuple
    head: tuple

    def scores(self, context: Any, per_arm: Any = None, activate: Callable | None = None) -> Any:
        """Score arms: float32 [n, arms], [n, k] or [n], of the kind of `context`.

        Args:
          context: float32 [n, G], array or tensor.
          per_arm: where arms have features, float32 [n, k, D], or [n, D] for one arm each.
          activate: function of the activation for tensors, such as `tf.nn.relu`; None for NumPy's.
        """
        activate = activate or ACTIVATIONS[self.activation]
        context = _apply_layers(self.context, context, activate)
        if self.join == "none":
            return _apply_head(self.head, context, activate)
        arm = _apply_layers(self.arm, per_arm, activate)
        if self.join == "product":
            return _apply_head(self.head, _expand(context, arm) * arm, activate)[..., 0]
        (kernel, bias), *rest = self.head
        size = context.shape[-1]  # the first layer takes the context once a row, not once an arm
        value = _expand(context @ kernel[:size] + bias, arm) + arm @ kernel[size:]
        return (_apply_head(rest, activate(value), activate) if rest else value)[..., 0]

    def save(self, file: Any) -> None:
        """Write the constants as an .npz, to a path or an open file."""
        arrays: dict[str, Any] = {"join": np.array(self.join), "activation": np.array(self.activation)}
        for tower in _TOWERS:
            for number, (kernel, bias) in enumerate(getattr(self, tower)):
                arrays |= {f"{tower}_{number}_kernel": kernel, f"{tower}_{number}_bias": bias}
        np.savez(file, **arrays)

    @classmethod
    def load(cls, file: str | BinaryIO) -> "Scorer":
        """Read an .npz that `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            towers = {}
            for tower in _TOWERS:
                count = sum(name.startswith(f"{tower}_") for name in arrays) // 2
                towers[tower] = tuple(
                    (arrays[f"{tower}_{number}_kernel"], arrays[f"{tower}_{number}_bias"]) for number in range(count)
                )
            return cls(str(arrays["join"]), str(arrays["activation"]), **towers)


def make_scorer(join: str, depth: int, variables: Sequence, head: Sequence = ()) -> Scorer:
    """Make the scorer of a network from its variables, kernel and bias in turn, and more layers of the head.

    With a join, the first `depth` layers are the tower of the context, and as many after them that of the arms.
    """
    values = [variable.numpy() for variable in variables]
    layers = tuple(zip(values[::2], values[1::2], strict=True))
    if join == "none":
        return Scorer(join, "relu", (), (), (*layers, *head))
    context, arm, rest = layers[:depth], layers[depth : 2 * depth], layers[2 * depth :]
    return Scorer(join, "elu" if join == "product" else "relu", context, arm, (*rest, *head))


def linear_head(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer (kernel, bias) of linear models theta float32 [models, size]."""
    return np.ascontiguousarray(np.asarray(theta).T), np.zeros(len(theta), np.float32)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


def _apply_layers(layers, x, activate):
    for kernel, bias in layers:
        x = activate(x @ kernel + bias)
    return x


def _apply_head(layers, x, activate):
    *hidden, (kernel, bias) = layers
    return _apply_layers(hidden, x, activate) @ kernel + bias


def _expand(context, arm):
    """Return the context [n, size] in a shape that broadcasts over arms [n, k, size] or [n, size]."""
    return context[:, None, :] if len(arm.shape) == 3 else context
