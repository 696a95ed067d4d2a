"""Sphinx's settings of the website; `build` runs Sphinx on a folder that it has laid out."""

from vlmlab import __version__

project, author, release = "vlmlab", "the authors of vlmlab", __version__
extensions = ["myst_nb", "autodoc2", "sphinxcontrib.katex", "sphinx_copybutton"]
exclude_patterns = ["vlmlab"]  # the package itself, which autodoc2 reads
root_doc = "index"

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # the default, commonmark, has no tables
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc2_packages = ["vlmlab"]  # read, never imported
autodoc2_output_dir = "api"
# Docstrings are parsed as what their pages are. With a parser of its own (`autodoc2_docstring_parser_regexes`), every page stores
# Sphinx's whole environment: 1.1 GB, and three times the time.
autodoc2_render_plugin = "myst"
autodoc2_hidden_objects = {"private", "dunder", "inherited"}
# Exercises would tell their solutions; claims stand in the index of systems; commands say of themselves what they take.
autodoc2_skip_module_regexes = [
    r"vlmlab\.book\.exercises\..*",
    r"vlmlab\.book\.website\..*",
    r"vlmlab\.studies\.verify\..*",
    r"vlmlab\.cli\..*",
]
suppress_warnings = ["myst.header"]  # a docstring may begin with a heading of any level
autodoc2_index_template = None
toc_object_entries = False  # otherwise every page carries every function in its navigation
add_module_names = False

katex_prerender = False
katex_css_path = "katex/katex.min.css"  # of the version of the script that the extension brings

html_theme = "pydata_sphinx_theme"
html_title = "vlmlab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["slider.js"]
html_theme_options = {
    "navigation_depth": 2,
    "collapse_navigation": True,
    "logo": {"text": "vlmlab"},
    "secondary_sidebar_items": ["page-toc"],
}
# They stand alone; and a page of the reference is found by search and by its summary tables: a tree of all modules beside each
# would take most of the time that the site takes.
html_sidebars = {name: [] for name in ("map", "systems", "measured", "glossary", "syllabus", "api/**")}
html_show_sourcelink = html_copy_source = False
