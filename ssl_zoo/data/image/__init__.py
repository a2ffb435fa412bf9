"""Images: sources, decoding, storage and the data module."""
