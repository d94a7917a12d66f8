"""The page: its parts of HTML, its charts as data, its script and its style. Knows no metric's formula."""
