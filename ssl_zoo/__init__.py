"""Self-supervised learning on images and text. Start with `ssl_zoo/method.py`."""

__version__ = "0.1.0"
