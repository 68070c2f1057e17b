"""Measured figures as Markdown tables and bar charts."""
