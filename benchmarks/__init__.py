"""What was measured: one module a question, `python -m benchmarks.NAME [--json FILE]`; results in RESULTS.md."""
