"""Policy: what may leave, decided from values alone."""
