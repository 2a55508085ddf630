"""One small file per command: arguments, one library call, printed result."""
