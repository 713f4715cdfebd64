"""What the Makefile runs: environment, lock, notebooks."""
