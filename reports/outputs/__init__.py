"""A run in other forms than its page, by the same numbers: tables, JSON, Markdown, pictures of its charts."""
