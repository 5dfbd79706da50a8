"""Report dictionaries -> text: table, CSV, Markdown, HTML; and the JSON Schema they obey."""
