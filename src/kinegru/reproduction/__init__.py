"""The paper's tables and figures, row by row: what is run, what it costs, running it, and the pages that show it."""
