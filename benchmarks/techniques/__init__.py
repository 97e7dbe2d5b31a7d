"""What each technique of fine-tuning buys, out of fold."""
