"""Report documents -> text: table, JSON, CSV, Markdown, HTML; and the JSON Schema they obey.

Everything here is a pure function of the document that ``--format json`` prints, so a report
that was saved last year renders like one that was measured a second ago.
"""
