"""Speed and accuracy against peers. Nothing in the packages imports this."""
