"""Programs that measure seconds and memory of what the package does; run as `python -m benchmarks.NAME`.

Each reports one line of JSON, of which `tools.make_performance_page` makes docs/performance.md.
"""
