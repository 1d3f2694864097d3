"""The look of the reports: one self-contained HTML page, light or dark.

Must not know what they are about.
"""

import html
from collections.abc import Iterable, Sequence

from sm_mlops.tabular.text import visible


def document(title: str, body: Iterable[str]) -> str:
    """Return the page with these parts of its body."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escaped(title)}</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        "<meta name=color-scheme content='light dark'>"
        f"<style>{CSS}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def escaped(text: object) -> str:
    """Return text as HTML, in which characters that reorder or hide others are shown."""
    return html.escape(visible(text))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML."""
    head = "".join(f"<th>{name}" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}</tr>" for row in rows)
    return f"<div class=table><table><thead><tr>{head}</tr></thead>{body}</table></div>"


def tiles(cells: Iterable[tuple[str, str, str]]) -> str:
    """Return a row of figures: name, value and note of each, which are HTML."""
    body = "".join(
        f"<div><small>{name}</small><strong>{value}</strong><em>{note}</em></div>"
        for name, value, note in cells
    )
    return f"<section class=tiles>{body}</section>"


CSS = """
:root{--page:#f6f7f9;--card:#fff;--ink:#1f2937;--muted:#64748b;--line:#e2e8f0;--blue:#2563eb;
--orange:#ea580c;--green:#059669;--violet:#7c3aed;--pink:#db2777;--cyan:#0891b2;--yellow:#ca8a04;
--slate:#475569;--good:#047857;--bad:#b91c1c}
@media(prefers-color-scheme:dark){:root{--page:#0f141b;--card:#181f29;--ink:#e5e9f0;--muted:#98a4b5;
--line:#2b3544;--blue:#4f8ff7;--orange:#fb923c;--green:#34d399;--violet:#a78bfa;--pink:#f472b6;
--cyan:#22d3ee;--yellow:#facc15;--slate:#94a3b8;--good:#34d399;--bad:#f87171}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:8px 20px 64px}
header{padding:28px 0 4px}header p{margin:0;font-size:17px;max-width:46em}
header p:first-child{color:var(--muted);font-size:14px}
h1{margin:2px 0 10px;font-size:32px;line-height:1.2;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{margin:40px 0 12px;font-size:20px}h3{margin:24px 0 10px;font-size:16px}
section{display:grid;gap:16px;margin:20px 0 0}h2+section{margin-top:0}
.tiles{grid-template-columns:repeat(auto-fit,minmax(165px,1fr))}
.figures{grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr))}
.three{grid-template-columns:repeat(auto-fit,minmax(min(310px,100%),1fr))}
.tiles div,figure,.table,dl,.gate{background:var(--card);border:1px solid var(--line);
border-radius:10px}
.tiles div{padding:14px 18px;min-width:0}
.tiles small,.tiles em,figcaption,dt,.muted{color:var(--muted);font-size:13px;font-style:normal}
.tiles small{overflow-wrap:anywhere}
.tiles strong{display:block;font-size:28px;line-height:1.3;font-variant-numeric:tabular-nums}
.better{color:var(--good)}.worse{color:var(--bad)}
.gate{padding:16px 22px;gap:6px}.gate h2,.gate ul{margin:0}.gate ul{padding-left:20px}
figure{margin:0;padding:16px 16px 8px;min-width:0}figcaption b{color:var(--ink);font-size:15px}
.wide{grid-column:1/-1}
svg{width:100%;height:auto;display:block;max-height:860px}svg text{font-family:inherit!important}
.table{overflow-x:auto;margin:0 0 16px}.figures .table{margin:0}
table{border-spacing:0;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--muted);font-weight:600;white-space:nowrap}
th,td{padding:8px 14px;border-bottom:1px solid var(--line);overflow-wrap:break-word;
vertical-align:top}
tr:last-child td{border-bottom:0}
.bar{display:block;height:8px;min-width:1px;border-radius:2px;background:var(--blue);margin:6px 0}
.drivers td:nth-child(2){width:34%;min-width:8em}.up{color:var(--blue)}.down{color:var(--orange)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:8px 24px;padding:18px 22px;
font-size:13px;margin:16px 0 0}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
@media(max-width:600px){th,td{padding:8px 10px}main{padding:0 12px 40px}
dl{grid-template-columns:1fr;gap:2px}
dd{margin-bottom:8px}h1{font-size:26px}}
@media print{body{background:#fff}figure,.table,.tiles div{break-inside:avoid}}
"""
