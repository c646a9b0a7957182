"""Benchmarks: one module a question. `python -m bench` runs all, `python -m bench.NAME` one."""
