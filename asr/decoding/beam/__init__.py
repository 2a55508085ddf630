"""The CTC beam search, compiled by numba."""
