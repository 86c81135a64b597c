"""Pictures of runs, as text: SVG, and the HTML that a notebook shows. Everything here is pure.

It draws what is stored readable: nothing is loaded, and nothing that was stored is obeyed. Each picture holds
its own style, which touches nothing outside it, and reads well on light and on dark pages.
"""
