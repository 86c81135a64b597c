"""Pictures of runs as text: SVG, and the HTML for notebooks. Everything here is pure.

It draws only readable stored texts, and loads nothing. Stored text is escaped, so it never becomes markup.
Each picture has its own style, which affects nothing outside it, and suits light and dark pages.
"""
