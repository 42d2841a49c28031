"""The docs as a site: sphinx with MyST and furo, since all three are maintained and read the
Markdown that is here anyway.

pip install --group docs && python -m sphinx -W --keep-going -b html docs docs/_build
(needs neither torch nor a GPU)
"""

project = "ldt-bench"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "ldt-bench"
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # so that [x](page.md#heading) is checked too
html_static_path: list[str] = []
