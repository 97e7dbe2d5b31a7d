"""scikit-learn's LogisticRegression on the same features: the head without a deep-learning library."""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression

from benchmarks.contest import arguments, head_data, peak_mb, report, timed

if __name__ == "__main__":
    x, y = head_data(arguments().place)
    seconds, _ = timed(lambda: LogisticRegression(max_iter=1000).fit(x, y))
    report(seconds=seconds, peak_mb=peak_mb())
