"""Request predictions from an endpoint of any platform."""

import pandas as pd


def instances_of(users, **options):
    """Make the instances of a request for some users.

    Args:
      users: DataFrame of the raw columns of the users, such as `training.read_users` reads, indexed by their ids.
      **options: the same for all of them, such as `k=3`, `seed=1` or `candidates=["1", "2"]`; see docs/openapi.json.

    Returns:
      list of dicts, one for each user.
    """
    contexts = users.to_dict("records")
    return [
        {"user_id": str(user), "context": context} | options
        for user, context in zip(users.index, contexts, strict=True)
    ]


def recommend(endpoint, users, **options):
    """Request recommendations from an endpoint.

    Args:
      endpoint: `platforms.endpoints.Endpoint`, local or of Vertex AI.
      users: as of `instances_of`.
      **options: as of `instances_of`.

    Returns:
      DataFrame indexed by user: movies (titles), score and propensity of the first one, version that answered.
    """
    answers = pd.DataFrame(endpoint.predict(instances_of(users, **options)))
    table = pd.DataFrame({"movies": answers["titles"].str.join(" · "), "score": answers["scores"].str[0]})
    table = table.assign(propensity=answers["propensity"], version=answers["policy_version"])
    return table.set_index(users.index.rename("user"))
