"""A package so that `python -m tests.bench` finds the benchmarks, whatever else is installed."""
