"""One file per format: writes an encoder for another library and says how to load it."""
