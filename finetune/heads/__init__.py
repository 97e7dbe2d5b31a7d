"""Linear heads in closed form or by L-BFGS, and the choice among them."""
