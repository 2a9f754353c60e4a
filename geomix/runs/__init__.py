"""The run directory: where everything lies, who may write, and what its histories say. No torch."""
