"""Text: sources, tokenizer, token store and the data module."""
