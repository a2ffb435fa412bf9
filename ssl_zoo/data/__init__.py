"""Data modules for images, text and image-caption pairs."""
