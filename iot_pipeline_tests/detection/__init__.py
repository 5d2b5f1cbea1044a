"""What the anomaly detector promises."""
