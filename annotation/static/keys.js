/** Keyboard shortcuts, as listed in the help dialog. Most press a button. */

const BUTTONS = { b: "tool-brush", e: "tool-eraser", p: "tool-polygon", r: "tool-box", a: "add-object",
  n: "next-doubtful", k: "play", f: "fit", 0: "fit", ",": "previous-annotated", ".": "next-annotated", "?": "help" };
const CONTROL_BUTTONS = { z: "undo", y: "redo", arrowleft: "previous-annotated", arrowright: "next-annotated" };

/** Handle a key; returns whether it was used. */
export function shortcut(event, app) {
  const key = event.key.toLowerCase();
  const action = event.ctrlKey || event.metaKey ? withControl(key, event.shiftKey) : event.altKey ? null
    : press(BUTTONS[key]) ?? plain(key, event, app);
  action?.();
  return Boolean(action);
}

function press(id) { return id && (() => document.getElementById(id).click()); }

function withControl(key, shift) {
  if (key === "enter") return () => document.querySelector("#stop:not([hidden]), #propagate").click();
  return press(key === "z" && shift ? "redo" : CONTROL_BUTTONS[key]);
}

function plain(key, { shiftKey, repeat }, app) {
  const step = shiftKey ? 10 : 1;
  if (/^[1-9]$/.test(key)) return () => app.objects.selectPlace(Number(key) - 1);
  const resize = (factor) => app.setDiameter(app.kit.diameter * factor);
  return { "[": () => resize(0.8), "]": () => resize(1.25), s: () => app.scribbleKey(),
    "+": () => app.view.zoom(1.25), "=": () => app.view.zoom(1.25), "-": () => app.view.zoom(0.8),
    arrowleft: () => app.move(app.frame - step), arrowright: () => app.move(app.frame + step),
    home: () => app.move(0), end: () => app.move(app.state.frames - 1), h: () => repeat || app.hideOverlay(true) }[key];
}
