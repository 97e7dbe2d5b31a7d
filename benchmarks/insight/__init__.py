"""What insight promises, measured: the interval, planted copies, wrong labels."""
