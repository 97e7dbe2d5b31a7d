"""What the trained network is worth: metrics, confidence, report, comparisons."""
