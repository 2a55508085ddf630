"""Normalizing transcripts and turning them into tokens."""
