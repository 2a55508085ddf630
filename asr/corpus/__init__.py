"""Manifests, their checks and conversions, and the batches made from them."""
