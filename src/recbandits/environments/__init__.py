"""Simulated recommenders: contexts, candidate movies and rewards whose optimum is known."""
