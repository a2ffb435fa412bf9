"""Backbones for images and text, and access to their tokens."""
