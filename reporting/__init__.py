"""What the HTML report is made of: evidence from checkpoints, bootstrap intervals, pictures, charts, the page."""
