"""The Dagster side: what runs when, and what the web page shows. The work itself is done elsewhere."""
