"""What processes write of themselves: the form of the lines, the ids in them, and what must never stand there."""
