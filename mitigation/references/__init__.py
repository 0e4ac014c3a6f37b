"""Reference sets: features, similarity and search."""
