"""What computes: knows devices, threads and processes, from token sequences to pooled vectors; must not know texts."""
