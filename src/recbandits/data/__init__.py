"""MovieLens in, splits, features and training records out."""
