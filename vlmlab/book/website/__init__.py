"""The book as a static website: chapters as executed, generated pages, and the reference from docstrings.

`make site` builds it. `pages` writes what is generated from the registry and the chapters, `chapters` prepares the notebooks
for the page, `build` lays both into a folder and runs Sphinx on it with `conf.py`, and `links` refuses a site with a dead link
or one that asks another server for anything.
"""
