"""The measurements behind docs/benchmarks.md and the tables of the README; `make bench` runs them."""
