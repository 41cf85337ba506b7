"""What is Reddit's alone: its boilerplate and its ways to ask."""
