"""No kernels are needed here."""
