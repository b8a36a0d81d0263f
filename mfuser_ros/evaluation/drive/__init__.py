"""What one drive through the node gave: figures, a film, a page."""
