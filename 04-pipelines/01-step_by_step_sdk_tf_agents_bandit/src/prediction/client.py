"""Ask an endpoint, on whatever platform it is."""

import pandas as pd


def instances_of(user_ids, **options):
    """What an endpoint is asked for some users.

    Args:
      user_ids: whom to recommend to.
      **options: the same for all of them, such as `k=3`, `seed=1` or `candidates=[1, 2]`; see docs/openapi.json.

    Returns:
      list of dicts, one for each user.
    """
    return [{"user_id": int(user)} | options for user in user_ids]


def recommend(endpoint, user_ids, **options):
    """Ask for recommendations and tell them to people.

    Args:
      endpoint: `platforms.endpoints.Endpoint`, local or of Vertex AI.
      user_ids: whom to recommend to.
      **options: as of `instances_of`.

    Returns:
      DataFrame indexed by user: movies (titles), score and propensity of the first one, version that answered.
    """
    answers = pd.DataFrame(endpoint.predict(instances_of(user_ids, **options)))
    table = pd.DataFrame({"movies": answers["titles"].str.join(" · "), "score": answers["scores"].str[0]})
    table = table.assign(propensity=answers["propensity"], version=answers["policy_version"])
    return table.set_index(pd.Index(list(user_ids), name="user"))
