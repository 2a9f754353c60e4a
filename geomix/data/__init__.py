"""Text and facts into tokenised examples: sources, template, label mask, mixing."""
