"""A report of an evaluation: one HTML file with pictures, charts and plotly.js inside, which works offline."""
