"""The objectives, a file each; `asr.training.objectives` is their registry."""
