"""How the report's pages look, on screen and on paper."""

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe3e8; --accent: #0072B2; --tint: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 64rem; color: var(--ink);
  background: #fff; font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--soft); margin: 0; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
.headline { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: .5rem 0 .4rem; }
.setup, .created, figcaption, .caption { color: var(--soft); font-size: .87rem; }
.setup, .created { margin: .1rem 0; }
.warning, .failure { margin: 1rem 0; padding: .7rem 1rem; border-left: 4px solid #E69F00;
  background: #fdf6e7; }
.failure { border-color: #c0392b; background: #fbeeec; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0 0; padding: 0; }
.tiles div { background: var(--tint); border-radius: 6px; padding: .7rem .9rem; }
.tiles dt { color: var(--soft); font-size: .82rem; }
.tiles dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem .28rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
tr.failed td { color: #a5281b; }
td small { display: block; color: var(--soft); }
.guards { columns: 2 22rem; column-gap: 2rem; margin: 0; padding: 0; list-style: none;
  font-size: .85rem; line-height: 1.4; }
.guards li { display: flex; gap: .6rem; break-inside: avoid; padding: .2rem 0; }
.guards b { flex: 0 0 4.4rem; padding: 0 .35rem; align-self: flex-start; white-space: nowrap;
  border-left: 4px solid #9aa3ad; color: var(--soft); }
.guards .pass b { border-color: #0072B2; color: #0072B2; }
.guards .warn b { border-color: #E69F00; color: #7a5200; background: #fdf6e7; }
.guards .fail b { border-color: #D55E00; color: #fff; background: #b34700; }
.reasons { margin: .5rem 0; padding-left: 1.1rem; color: var(--soft); font-size: .87rem; }
.narrow th, .narrow td { padding: .38rem .12rem; }
.narrow th { overflow-wrap: anywhere; font-size: .78rem; }
.small { width: auto; }
figure { margin: 1rem 0; break-inside: avoid; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
.figures figure { margin: .4rem 0; max-width: 28.5rem; }
svg { max-width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
pre { background: var(--tint); border-radius: 6px; padding: .9rem 1rem; overflow-x: auto;
  font-size: .82rem; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-size: .9em; overflow-wrap: anywhere; }
dl.plain { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem;
  margin: 0 0 1.2rem; }
dl.plain dt { color: var(--soft); }
dl.plain dd { margin: 0; }
details summary { cursor: pointer; color: var(--accent); }
@media print {
  body { max-width: none; padding: 0; font-size: 11px; }
  .headline { font-size: 1.3rem; }
  h2 { break-after: avoid; }
  tr, .tiles, .guards li, .warning, .failure { break-inside: avoid; }
  pre { white-space: pre-wrap; }
}
"""
