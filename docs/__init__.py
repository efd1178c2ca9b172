"""The documentation, and the program that writes the parts of it which the code itself can tell."""
