"""The same numbers of a run in other forms: tables, JSON, Markdown, pictures of its charts."""
