"""Policies on disk: what a server needs, and nothing of what trained it."""
