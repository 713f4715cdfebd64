"""Learning loops: online simulation."""
