"""Evaluators of the frozen encoder, one per file."""
