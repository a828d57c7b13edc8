"""Sphinx: ``make docs`` builds the pages into docs/_build and takes a warning for an error."""
import re
from importlib.util import find_spec
from pathlib import Path

from sphinx.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

project = 'simpleseg_mm'
author = 'The simpleseg_mm contributors'
copyright = '2026, the simpleseg_mm contributors'
release = version = re.search(r"__version__ = '(.+)'",
                              (ROOT / 'simpleseg_mm/__init__.py').read_text())[1]

extensions = ['myst_nb', 'sphinx_design', 'sphinx_copybutton', 'sphinx.ext.napoleon',
              'autoapi.extension']
if lacking := [name for name in extensions if not find_spec(name.partition('.')[0])]:
    raise ConfigError(f'not installed: {", ".join(lacking)}. Use `make docs`, or pip install -r '
                      'requirements/lock-docs.txt')
source_suffix = {'.md': 'myst-nb', '.ipynb': 'myst-nb', '.rst': 'restructuredtext'}
root_doc = 'index'
exclude_patterns = ['_build', '_templates']
nitpicky = False  # types of other packages have no page here

# Notebooks are shown as they are committed: docs/tutorials/run_notebooks.py runs them.
nb_execution_mode = 'off'
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3

html_theme = 'furo' if find_spec('furo') else 'alabaster'  # Sphinx's own
html_title = f'simpleseg_mm {release}'
html_static_path = ['_static']
html_css_files = ['custom.css']
html_theme_options = dict(top_of_page_buttons=[]) if html_theme == 'furo' else {}
copybutton_exclude = '.linenos, .gp, .go'

# The API pages: read from the source, which is not imported. A page for each module that api.md
# names, with what has a docstring.
autoapi_dirs = ['../simpleseg_mm']
autoapi_root = '_api'
autoapi_template_dir = '_templates'
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_options = ['members', 'imported-members', 'show-inheritance']
autoapi_member_order = 'groupwise'
autoapi_python_class_content = 'class'
python_use_unqualified_type_names = True
toc_object_entries_show_parents = 'hide'
python_maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = 'code'  # `name` in a docstring

# of `A, B = 1, 2`, which autoapi does not read; of a notebook's `!command \` in several lines,
# which Pygments does not read (blocks of pages are compiled by the tests)
suppress_warnings = ['autoapi.python_import_resolution', 'misc.highlighting_failure']

DOCUMENTED = set(re.findall(r'^/?_api/(\S+)/index$',
                            (ROOT / 'docs/api.md').read_text(), re.M))


def skip(app, what, name, obj, skipped, options):
    """Leaves out modules that api.md does not name, and what another package brings in: a thing
    stands on one page, that of its own package."""
    if what in ('module', 'package'):
        return name.replace('.', '/') not in DOCUMENTED
    if obj.imported and not obj.obj['original_path'].startswith(f'{name.rpartition(".")[0]}.'):
        return True
    return None


def mark_examples(app, what, name, obj, options, lines):
    """Indented lines between paragraphs of a docstring are examples: blocks of code."""
    marked, block = [], []
    for line in [*lines, 'end']:
        starts = line.startswith('    ') and not (marked or [''])[-1].strip()
        if block and (line.startswith('    ') or not line.strip()):
            block.append(line)
        elif not block and starts and _ends_a_paragraph(marked):
            block = [line]
        else:
            if block:
                language = 'python' if _is_python(block) else 'text'
                marked += [f'.. code-block:: {language}', '', *block, '']
                block = []
            marked.append(line)
    lines[:] = [line.replace(', **kwargs', r', \*\*kwargs') for line in marked[:-1]]


def _ends_a_paragraph(lines):
    before = next((line for line in reversed(lines) if line.strip()), '')
    return bool(before) and not before.startswith((' ', '*', '-', '.. ')) and (
        not before.endswith('::'))


def _is_python(block):
    indent = min(len(line) - len(line.lstrip()) for line in block if line.strip())
    try:
        compile('\n'.join(line[indent:] for line in block), 'example', 'exec')
    except SyntaxError:
        return False
    return True


def link_files(app, name, source):
    """Pages of the repository outside docs/ are links to files."""
    above = r'\.\./' * (name.count('/') + 1)
    source[0] = re.sub(rf'\]\(({above}[^)#]+\.md)(?:#[^)]*)?\)', r'](<path:\1>)', source[0])


def setup(app):
    app.connect('source-read', link_files)
    app.connect('autoapi-skip-member', skip)
    app.connect('autodoc-process-docstring', mark_examples, priority=100)  # before napoleon
