"""From recorded runs to tables, findings and figures; one file or package an analysis."""
