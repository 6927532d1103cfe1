"""Report on runs as one HTML page, Markdown and JSON."""
