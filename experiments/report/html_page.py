"""The HTML page: one file that needs no network, with plotly's script, ours, and the data.

What a run says (names, settings, messages) reaches the page as JSON alone, and is shown as text. A policy in the page
lets the browser run the two scripts, by their hashes, and nothing else, and load nothing.
"""

import base64
import hashlib
import html
import importlib.util
from importlib.resources import files

from experiments.report.content import as_json
from fl_sim.errors import ConfigError

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p id="status"></p></header>
<main id="page"><noscript>This page needs JavaScript; it loads nothing from elsewhere.</noscript></main>
<script type="application/json" id="data">{data}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def plotly_script() -> str:
    """Plotly's script. Raises ConfigError where plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise ConfigError("plotly is not installed, and draws the page's curves; pip install 'fl-sim[report]'")
    from plotly.offline import get_plotlyjs  # imported here, because it is an extra

    return str(get_plotlyjs())


def html_page(title: str, data: object, live: bool = False) -> str:
    """The page as text.

    Parameters
    ----------
    title : str
        The page's title.
    data : object
        What ``content`` returned; of a live page ``{"live": seconds}``, after which it asks for the data again.
    live : bool
        Whether the page may ask the server that it comes from for data.

    Raises
    ------
    ConfigError
        Where plotly is not installed.
    """
    folder = files("experiments.report")
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    plotly = plotly_script()
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (plotly, script)
    )
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; connect-src "
    policy += "'self'" if live else "'none'"
    return PAGE.format(
        policy=policy, title=html.escape(title), style=style, data=as_json(data), plotly=plotly, script=script
    )
