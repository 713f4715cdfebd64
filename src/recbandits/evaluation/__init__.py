"""Is a policy any good? Regret, and the confidence in it."""
