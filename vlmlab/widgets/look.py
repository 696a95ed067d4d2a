"""How panels look: controls in a column beside the answer, legible in the light and in the dark theme."""

LOOK = """<style>
.vlmlab-panel { container-type: inline-size; overflow: hidden; line-height: 1.35; }
.vlmlab-panel .widget-box, .vlmlab-panel .widget-html { overflow: visible; }
.vlmlab-panel .widget-html-content { line-height: 1.35; overflow-wrap: anywhere; }
.vlmlab-head { height: 26px; align-items: center; gap: 12px; }
.vlmlab-head > * { margin: 0; }
.vlmlab-busy { flex: 1 1 auto; min-width: 0; font-variant-numeric: tabular-nums; }
.vlmlab-head .vlmlab-stop { width: 84px; height: 24px; line-height: 24px; flex: none; }
.vlmlab-head .vlmlab-stop[disabled] { visibility: hidden; }
.vlmlab-row.widget-box { display: grid; grid-template-columns: 240px minmax(0, 1fr); gap: 4px 14px; align-items: start; }
.vlmlab-controls.widget-box { flex-flow: column nowrap; max-height: 586px; overflow: hidden auto; min-width: 0; }
.vlmlab-controls > * { margin: 2px 0; max-width: 100%; box-sizing: border-box; flex: none; }
.vlmlab-controls .widget-inline-hbox > .widget-label { text-align: left; }
.vlmlab-controls .widget-inline-hbox .widget-readout { min-width: 40px; max-width: 48px; margin: 0 0 0 2px; }
.vlmlab-controls .widget-toggle-buttons { width: 100%; }
.vlmlab-controls .widget-toggle-buttons .jupyter-button { width: auto !important; flex: 1 1 auto; margin: 0 2px 2px 0; padding: 0 6px; }
.vlmlab-controls .jupyter-button { padding: 0 8px; }
.vlmlab-controls .widget-upload { width: 100%; }
.vlmlab-controls .vlmlab-above.widget-inline-hbox { flex-wrap: wrap; height: auto; }
.vlmlab-controls .vlmlab-above.widget-inline-hbox > .widget-label { width: 100% !important; height: 20px; line-height: 20px; }
.vlmlab-controls .vlmlab-above.widget-inline-hbox > input,
.vlmlab-controls .vlmlab-above.widget-inline-hbox > textarea { width: 100%; }
.vlmlab-shown.widget-box { max-height: 586px; overflow: hidden auto; min-width: 0; transition: opacity 0.1s; }
.vlmlab-shown.vlmlab-old { opacity: 0.4; }
.vlmlab-shown > * { margin: 0; }
.vlmlab-shown .widget-hbox { gap: 4px 6px; flex-flow: row wrap; align-items: flex-start; }
.vlmlab-shown .widget-hbox > * { margin: 0; max-width: 100%; }
.vlmlab-click { position: relative; display: inline-block; line-height: 0; max-width: 100%; }
.vlmlab-click:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.vlmlab-click img:not([src]) { display: none; }
.vlmlab-click img[src] { max-width: 100%; height: auto; display: block; }
.vlmlab-click[role=application] { cursor: pointer; }
.vlmlab-cell { position: absolute; box-sizing: border-box; border: 2px solid #222; outline: 2px solid #fff;
  pointer-events: none; }
.vlmlab-tip { position: absolute; z-index: 2; padding: 2px 6px; border-radius: 3px; background: #222; color: #fff;
  font-size: 12px; line-height: 1.35; pointer-events: none; width: max-content; max-width: 260px; white-space: pre-line; }
.vlmlab-token { border: 1px solid #999; border-radius: 4px; padding: 0 3px; margin: 1px; display: inline-block;
  font-size: 12px; }
.vlmlab-told { color: #8F3D00; }
body[data-jp-theme-light='false'] .vlmlab-told { color: #FFB074; }
.vlmlab-hit { background: #FCE8B2; color: #222; }
.vlmlab-panel table { text-align: left; border-spacing: 6px 1px; overflow-wrap: break-word; }
.vlmlab-panel td, .vlmlab-panel th { vertical-align: top; }
.vlmlab-panel pre { margin: 0; white-space: pre; overflow-x: auto; }
.vlmlab-shown .widget-hbox > .widget-html { flex: 1 1 240px; }
.vlmlab-bars > * { white-space: nowrap; }
.vlmlab-bars small { white-space: normal; }
.vlmlab-bars { display: grid; grid-template-columns: minmax(40px, max-content) minmax(24px, 1fr) 52px; gap: 3px 6px;
  max-width: 560px; align-items: center; }
.vlmlab-bars .bar { position: relative; height: 16px; }
.vlmlab-bars .bar > i { position: absolute; left: 0; top: 0; bottom: 0; background: #6E8898; }
.vlmlab-bars .bar > u { position: absolute; top: -1px; bottom: -1px; width: 2px; background: var(--jp-ui-font-color1, #222); }
.vlmlab-bars .word { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 200px; }
body[data-jp-theme-light='false'] .vlmlab-bars .bar > i { background: #A9BECA; }
@container (max-width: 560px) {
  .vlmlab-row.widget-box { grid-template-columns: minmax(0, 1fr); }
  .vlmlab-controls.widget-box, .vlmlab-shown.widget-box { max-height: none; }
}
</style>"""
