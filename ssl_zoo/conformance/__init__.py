"""Conformance kit: checks that every method must pass; `python -m ssl_zoo.conformance simclr`, or your own class."""
