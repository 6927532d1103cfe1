"""Reporting: tables, figures, films, contact sheets, the report page."""
