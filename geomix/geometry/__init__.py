"""Inner products and cosines (pure maths)."""
