"""Measuring speed: transcription by its parts, training steps, decoders; reports as JSON, table and picture."""
