"""Who owns a socket: the BPF program, its record layout and loader, and what /proc adds."""
