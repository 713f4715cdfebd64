"""Agents by name, with exact exploration probabilities."""
