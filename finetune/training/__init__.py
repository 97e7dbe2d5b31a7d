"""From rows to a trained network: head or whole network, optimizers, the loop."""
