"""What containers are called: asked of the machine's container engines, away from any packet's path."""
