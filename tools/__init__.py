"""Tools of the Makefile: environment, lock, notebooks."""
