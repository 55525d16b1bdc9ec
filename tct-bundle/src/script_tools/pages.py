"""Turn a report in Markdown into one page that can be read anywhere: on a phone, in dark mode, without a network."""

import base64
import html
import re
from pathlib import Path

# Wide tables, figures and code scroll in their own box. Figures keep their white background in dark mode.
STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --page: #fff; --box: #f4f5f7; --line: #d5d9de; --link: #0860c4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e9; --page: #15181c; --box: #20242a; --line: #3b414a; --link: #7ab8ff; }
}
body { max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 4rem; overflow-wrap: break-word;
  font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
h1, h2, h3 { margin: 2rem 0 .75rem; line-height: 1.25; }
h1 { font-size: 1.6rem; }
a { color: var(--link); }
table { display: block; width: max-content; max-width: 100%; margin: 1rem 0; overflow-x: auto;
  border-collapse: collapse; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); }
td:not(:first-child) { min-width: 4rem; }
p:has(> img) { overflow-x: auto; padding: .5rem; border-radius: .5rem; background: #fff; }
img { display: block; width: 100%; min-width: 40rem; }
code { font-size: .9em; }
@media (max-width: 40rem) { table { font-size: .9rem; } td:first-child { min-width: 7.5rem; } }
pre { padding: .8rem; overflow-x: auto; border-radius: .5rem; background: var(--box); line-height: 1.4; }
"""


def render_page(text: str, folder: Path) -> str:
    """Return Markdown as an HTML page. It contains the figures, .png files of the folder.

    Raise ImportError without markdown-it-py.
    """
    from markdown_it import MarkdownIt  # slow, and --help does not need it

    def embedded(match) -> str:
        return f'src="data:image/png;base64,{base64.b64encode((folder / match[1]).read_bytes()).decode()}"'

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r'src="([\w.-]+\.png)"', embedded, body)
    title = html.escape(re.search(r"# (.*)", text)[1])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
