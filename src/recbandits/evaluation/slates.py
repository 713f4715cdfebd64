"""Judge a ranking policy by a log of slates that another policy wrote: every estimator for which enough is known.

The estimators and what they assume are in `slate_estimators`; a model of rewards for the doubly robust one is made by
`slate_reward_model.slate_reward_model`; `estimate.tabulate` and `estimate.difference` read the result.
"""

import numpy as np

from recbandits.evaluation.estimators import ROUNDING, check_numbers
from recbandits.evaluation.slate_estimators import (
    cascade_dr,
    item_position_ips,
    reward_interaction_ips,
    shaped,
    slate_ips,
)

_FORMS = {  # name: (plain estimator, whether self-normalised)
    "IPS": ("IPS", False),
    "SNIPS": ("IPS", True),
    "IIPS": ("IIPS", False),
    "SNIIPS": ("IIPS", True),
    "RIPS": ("RIPS", False),
    "SNRIPS": ("RIPS", True),
    "cascade-DR": ("cascade-DR", False),
    "cascade-SNDR": ("cascade-DR", True),
}
SLATE_ESTIMATORS = tuple(_FORMS)


def slate_estimates(log, target_propensity, target_position=None, q=None, target_conditional=None, names=None):
    """Estimate the expected sum of rewards of a policy's slates in several ways.

    Args:
      log: `data.slate_log.SlateLog` of n slates.
      target_propensity: float [n, slots] in [0, 1], probability under the evaluated policy of the logged item in each
        slot given the logged items above.
      target_position: float [n, slots] in [0, 1], probability of the logged item in the slot whatever stands above;
        with it, and `position_propensity` in the log, IIPS can be computed.
      q: float [n, slots, items], what a model predicts for the sum of rewards from slot k on, with a candidate in slot
        k below the logged items; with it and `target_conditional`, cascade-DR can be computed.
      target_conditional: float [n, slots, items], probability under the evaluated policy of each candidate for slot k
        below the logged items.
      names: some of `SLATE_ESTIMATORS`; by default all that can be computed.

    Returns:
      dict from name to `Estimate`; "IPS" is over whole slates, SN means self-normalised.

    Raises:
      ValueError: an estimator that does not exist or lacks an input, arrays that do not fit the log or each other.
    """
    target = shaped("target_propensity", target_propensity, log.slate.shape)
    logged = (log.reward, log.propensity, target)
    known = {"IPS": (slate_ips, logged), "RIPS": (reward_interaction_ips, logged)}
    if target_position is not None and log.position_propensity is not None:
        position = shaped("target_position", target_position, log.slate.shape)
        known["IIPS"] = (item_position_ips, (log.reward, log.position_propensity, position))
    if q is not None and target_conditional is not None:
        known["cascade-DR"] = (cascade_dr, (*logged, *_predictions(log, target, q, target_conditional)))
    possible = [name for name, (plain, _) in _FORMS.items() if plain in known]
    found = {}
    for name in possible if names is None else names:
        if name not in possible:
            raise ValueError(f"names must be among {', '.join(possible)}, for which the inputs are there, got {name!r}")
        plain, self_normalised = _FORMS[name]
        estimator, columns = known[plain]
        found[name] = estimator(*columns, self_normalised=self_normalised)
    return found


def _predictions(log, target_propensity, q, target_conditional):
    """(q of the logged items, its expectation under the evaluated policy), both [n, slots]."""
    shape = (*log.slate.shape, log.candidates.shape[1])
    q = check_numbers("q", shaped("q", q, shape))
    conditional = shaped("target_conditional", target_conditional, shape)
    total = conditional.sum(axis=2)
    if (np.abs(total - 1) > ROUNDING).any() or conditional.min(initial=0) < 0:
        raise ValueError("target_conditional must be at least 0 and sum to 1 over the candidates of every slot")
    chosen = log.slate[:, :, None]
    of_logged = np.take_along_axis(conditional, chosen, axis=2)[:, :, 0]
    differs = np.abs(of_logged - target_propensity) > ROUNDING
    if differs.any():
        row, slot = np.argwhere(differs)[0]
        raise ValueError(
            f"target_conditional must give the logged item its target_propensity, record {row} has "
            f"{of_logged[row, slot]:g} in slot {slot} and not {target_propensity[row, slot]:g}"
        )
    return np.take_along_axis(q, chosen, axis=2)[:, :, 0], np.einsum("nsi,nsi->ns", conditional, q)
