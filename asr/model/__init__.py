"""The acoustic model and its one-file format."""
