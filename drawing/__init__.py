"""What the nodes show: plots, comparisons and the data for the page."""
