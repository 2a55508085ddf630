"""The commands: the arguments of each, one library call, the printed result; related small ones share a file."""
