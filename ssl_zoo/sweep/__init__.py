"""Runs each job of a `-m` sweep in a process of its own."""
