"""Agents that fill slates: ranking networks, cascading linear bandits, baselines."""
