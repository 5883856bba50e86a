"""The host around a guard: what is needed of it, what is changed on it, and how that is taken back."""
