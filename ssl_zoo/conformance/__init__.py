"""The kit that shows a method to be sound: `python -m ssl_zoo.conformance simclr`, or a class of your own."""
