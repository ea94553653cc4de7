"""XID errors: their catalogue, and the kernel log that they are reported in."""
