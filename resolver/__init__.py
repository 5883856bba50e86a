"""DNS: strict wire checks, the sans-IO exchange, cache, upstreams and listeners."""
