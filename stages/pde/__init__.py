"""Parameters of differential equations from noisy data: Gaussian processes that satisfy the equation."""
