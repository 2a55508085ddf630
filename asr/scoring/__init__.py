"""Edit counts and error rates."""
