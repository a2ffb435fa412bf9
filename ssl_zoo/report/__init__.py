"""Compares runs by their results.json files: `python -m ssl_zoo.report <folders>`."""
