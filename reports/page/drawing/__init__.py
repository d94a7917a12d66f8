"""What charts are drawn with: axes, and one function for each kind of chart."""
