/** The page: connects the server, the stage, the tools, the timeline and the controls. */
import { Api, ServerGone, SessionTaken, sessionId } from "./api.js";
import { ClipState } from "./clipstate.js";
import { Editor } from "./editor.js";
import { FrameLoader } from "./frames.js";
import { Gestures } from "./gestures.js";
import { GrabCut } from "./hints.js";
import { Jobs, sentence } from "./jobs.js";
import { shortcut } from "./keys.js";
import { LabelMaps } from "./labels.js";
import { ObjectList } from "./objects.js";
import { Overlay } from "./overlay.js";
import { Saver } from "./saver.js";
import { Timeline } from "./timeline.js";
import { Toolbox } from "./tools.js";
import { View } from "./view.js";

const POLL_MS = 2000, POLL_BUSY_MS = 250;
const WAIT_FOR_LABELS_MS = 100;
const NOTICE_MS = 10000;
const MAX_DIAMETER = 0.5;                   // of the smaller side of the frame
const FIRST_STEP = { box: "Drag a box around an object.", scribble: "Draw a stroke on an object.",
  polygon: "Click points around an object.", brush: "Paint an object.",
  eraser: "Nothing to erase yet. Mark an object with another tool." };
const NEXT_STEP = "Refine the mask with Scribble or Brush, add another object, or press Propagate to find it in " +
  "all frames.";

const $ = (id) => document.getElementById(id);

class App {
  constructor(api, clip) {
    this.api = api;
    this.clip = clip;
    this.frame = 0;
    this.state = new ClipState();
    this.saver = new Saver(() => this.showSaved());
    this.labels = new LabelMaps(api, clip, this.state, this.saver);
    this.overlay = new Overlay($("overlay"), clip);
    this.objects = new ObjectList($("object-list"), $("add-object"), this.state, clip.palette,
      { onSelect: () => this.tools.redraw(), save: (objects) => this.saveObjects(objects) });
    const goTo = (frame) => this.move(frame);
    this.editor = new Editor(this, { goTo, notify, onEdit: () => this.onEdit(), onHistory: () => this.showHistory() });
    this.grabcut = new GrabCut(this, this.editor, { notify, onBusy: () => this.showBusy() });
    this.jobs = new Jobs(this, { followFrame: (frame) => this.goTo(frame), notify, poll: () => this.poll() });
    this.frames = new FrameLoader(api, clip, this.state, (frame) => this.present(frame), notify);
    this.timeline = new Timeline($("timeline"), this.state, clip.palette, (frame) => this.move(frame));
    this.view = new View($("stage"), $("content"), clip, () => this.tools?.redraw());
    this.kit = { editor: this.editor, grabcut: this.grabcut, view: this.view, clip, background: false, notify,
      onDraw: () => this.stopMoving(), onProgress: () => this.showOptions() };
    this.tools = new Toolbox(this.kit, $("layer"));
    this.gestures = new Gestures(this.view, this.tools);
    this.showClip();
    this.listen();
    this.setDiameter(Math.min(clip.width, clip.height) / 16);
    this.selectTool("box");
    this.showHistory();
  }

  showClip() {
    const { name, width, height, fps, model, device } = this.clip;
    document.title = `${name} – annotate`;
    $("clip-name").textContent = name;
    const rate = fps ? `${Math.round(fps * 100) / 100} fps, ` : "";
    $("clip-info").textContent = `${width}×${height}, ${rate}${model} on ${device}`;
    Object.assign($("frame"), { width, height });
    this.context = $("frame").getContext("2d", { alpha: false });
  }

  listen() {
    const { editor, saver, view } = this;
    const clicks = { undo: () => editor.step(false), redo: () => editor.step(true), fit: () => view.fit(),
      retry: () => saver.run(), help: () => $("help-dialog").showModal(), play: () => this.play(!this.playing),
      "next-doubtful": () => this.find("doubtful", 1), "next-annotated": () => this.find("annotated", 1),
      "previous-annotated": () => this.find("annotated", -1),
      "next-frame": () => this.move(this.frame + 1), "previous-frame": () => this.move(this.frame - 1),
      "clear-frame": () => editor.clear(), "close-polygon": () => this.tools.settle(),
      "clear-hints": () => this.tools.key("Escape"),
      "show-overlay": () => this.hideOverlay(!$("overlay").hidden) };
    for (const id in clicks) $(id).addEventListener("click", clicks[id]);
    for (const button of $("tools").children)
      button.addEventListener("click", () => this.selectTool(button.dataset.tool));
    for (const button of document.querySelectorAll("dialog .close"))
      button.addEventListener("click", () => button.closest("dialog").close());
    $("size").addEventListener("input", () => this.setDiameter(this.largest * ($("size").value / 100) ** 2));
    $("opacity").addEventListener("input", () => this.overlay.setOpacity($("opacity").value / 100));
    $("frame-number").addEventListener("change", () => this.move(Number($("frame-number").value)));
    $("kind-option").addEventListener("change", () => (this.kit.background = $("kind-background").checked));
    addEventListener("keydown", (event) => this.keyDown(event));
    addEventListener("keyup", (event) => this.keyUp(event));
    addEventListener("change", ({ target }) => target.matches(":focus-visible") || target.blur());
    addEventListener("blur", () => this.holdSpace(false));
    addEventListener("beforeunload", (event) => {
      if (!saver.saved || this.grabcut.isRunning()) event.preventDefault();
    });
  }

  keyDown(event) {
    const { target, key } = event;
    if (document.querySelector("dialog[open]")) return;
    if (target.matches("input[type=number], input:not([type]), select")) {
      if (key === "Enter" || key === "Escape") target.blur();
      return;
    }
    if (target.matches("input:focus-visible, button:focus-visible") && /^(Arrow|Home|End|Enter| )/.test(key)) return;
    if (key === " ") this.holdSpace(true);
    if (key === " " || this.tools.key(key) || shortcut(event, this)) event.preventDefault();
  }

  keyUp(event) {
    if (event.key === " ") this.holdSpace(false);
    if (event.key.toLowerCase() === "h" && !event.target.matches("input")) this.hideOverlay(false);
  }

  holdSpace(held) {
    this.gestures.spaceHeld = held;
    $("stage").classList.toggle("panning", held);
  }

  // ---- frames ----

  /** Go to a frame because the user asks for it. */
  move(frame) {
    this.stopMoving();
    this.goTo(frame);
  }

  stopMoving() {
    this.jobs.stopFollowing();
    this.play(false);
  }

  goTo(frame) {
    const next = Math.max(0, Math.min(this.state.frames - 1, Math.round(frame) || 0));
    if (next !== this.frame) {
      this.tools.settle();
      if (this.staleLabels && !this.labels.isUnsaved(this.frame)) this.labels.drop(this.frame);
      this.staleLabels = false;
    }
    this.frame = this.labels.wanted = next;
    this.frames.want(next);
    this.timeline.setFrame(next);
    $("frame-number").value = next;
    this.showFrame();
  }

  showFrame() {
    this.objects.showFigures(this.frame);
    $("clear-frame").hidden = !this.state.annotated[this.frame];
  }

  /** Go to the next frame that is annotated or doubtful. */
  find(mark, step) {
    const frame = this.state.find(this.state[mark], this.frame, step);
    if (frame !== null) this.move(frame);
    else notify(`No frame is ${mark}.`);
  }

  /** Draw a frame, with its labels if they come in soon. */
  async present(frame) {
    this.presented = frame;
    if (!this.labels.peek(frame)) await Promise.race([this.loadLabels(), pause(WAIT_FOR_LABELS_MS)]);
    const image = this.frames.cache.get(frame);
    if (this.presented !== frame || !image) return;
    this.context.drawImage(image.bitmap, 0, 0, this.clip.width, this.clip.height);
    Object.assign($("stage").dataset, { frame, exact: image.exact });
    if (frame === this.editor.frame) return;
    this.editor.frame = frame;
    this.showLabels(this.labels.peek(frame) ?? null);
  }

  /** Load the labels of the frame presented last. There is one request at a time, since scrubbing would queue them. */
  loadLabels() {
    this.loading ??= this.loadPresented().catch(ignoreGone).finally(() => (this.loading = null));
    return this.loading;
  }

  async loadPresented() {
    while (!this.labels.peek(this.presented)) await this.labels.get(this.presented);
    if (this.presented === this.editor.frame) this.showLabels(this.labels.peek(this.presented));
  }

  showLabels(map) {
    this.overlay.show(map);
    $("stage").dataset.labels = map !== null;
    this.tools.redraw();
  }

  play(playing) {
    this.playing = playing;
    $("play").setAttribute("aria-pressed", playing);
    if (!playing) return;
    const first = this.frame >= this.state.frames - 1 ? 0 : this.frame, start = performance.now();
    const tick = () => {
      if (!this.playing) return;
      const frame = first + Math.floor(((performance.now() - start) / 1000) * (this.clip.fps || 24));
      if (frame >= this.state.frames - 1) this.play(false);
      if (this.editor.frame === this.frame || !this.playing) this.goTo(frame);
      requestAnimationFrame(tick);
    };
    tick();
  }

  // ---- tools and edits ----

  selectTool(name) {
    this.tools.select(name);
    for (const button of $("tools").children) button.setAttribute("aria-pressed", button.dataset.tool === name);
    $("stage").classList.toggle("brushing", name === "brush" || name === "eraser");
    this.showOptions();
    this.showHint();
  }

  scribbleKey() {
    const background = this.tools.name === "scribble" && !this.kit.background;
    this.selectTool("scribble");
    $(background ? "kind-background" : "kind-object").checked = true;
    this.kit.background = background;
  }

  showBusy() {
    $("busy").hidden = !this.grabcut.isRunning();
    this.showOptions();
  }

  showOptions() {
    const name = this.tools?.name;
    $("size-option").hidden = name !== "brush" && name !== "eraser";
    $("kind-option").hidden = name !== "scribble";
    $("close-polygon").hidden = name !== "polygon";
    $("close-polygon").disabled = this.tools?.tools.polygon.points.length < 3;
    $("clear-hints").hidden = !this.tools?.usesHints || !this.editor.hints;
  }

  get largest() { return Math.min(this.clip.width, this.clip.height) * MAX_DIAMETER; }

  setDiameter(diameter) {
    this.kit.diameter = Math.max(1, Math.min(this.largest, diameter));
    $("size").value = 100 * Math.sqrt(this.kit.diameter / this.largest);
    $("size-value").textContent = `${Math.round(this.kit.diameter)} px`;
    this.tools.redraw();
  }

  hideOverlay(hidden) {
    $("overlay").hidden = hidden;
    $("show-overlay").setAttribute("aria-pressed", !hidden);
  }

  onEdit() {
    this.stopMoving();
    this.timeline.redraw();
    this.tools.redraw();
    this.showOptions();
    this.showHint();
    this.showFrame();
    this.jobs.update();
  }

  saveObjects(objects) {
    this.timeline.redraw();
    this.saver.add("objects", () => this.api.send("PUT", "objects", objects).catch((error) => {
      if (isGone(error)) throw error;
      notify(error.message);
    }));
  }

  showHistory() {
    $("undo").disabled = !this.editor?.history.canUndo;
    $("redo").disabled = !this.editor?.history.canRedo;
  }

  showHint() {
    const { isAnnotated, isPropagated } = this.state;
    $("hint").textContent = isAnnotated ? NEXT_STEP : FIRST_STEP[this.tools.name];
    $("hint").hidden = isPropagated || this.jobs.running || this.state.frames === 0;
  }

  // ---- the server ----

  showSaved() {
    const { saved, error } = this.saver;
    if (error instanceof SessionTaken) showTaken(this);
    $("status").dataset.saved = saved;
    $("status").toggleAttribute("data-error", Boolean(error));
    $("status").textContent = saved ? "Saved" : error ? `Not saved: ${error.message}` : "Saving…";
    $("retry").hidden = !error;
    if (saved) this.poll();
  }

  /** Ask what changed, now and again after a while. An answer from before an edit was saved is dropped. */
  async poll() {
    clearTimeout(this.timer);
    const turn = (this.turn = {}), { generation } = this.saver;
    try {
      const answer = await this.api.json(`state?since=${this.state.version}`);
      if (turn !== this.turn) return;
      this.showGone(false);
      if (!this.saver.sending && generation === this.saver.generation) this.applyState(answer);
    } catch (error) {
      if (turn !== this.turn) return;
      if (error instanceof SessionTaken) return showTaken(this);
      this.showGone(true);
    }
    const busy = this.jobs.running || this.state.indexed < 1;
    this.timer = setTimeout(() => this.poll(), busy ? POLL_BUSY_MS : POLL_MS);
  }

  applyState(answer) {
    const changed = this.state.apply(answer);
    if (answer.error && answer.error !== this.clipError) notify((this.clipError = answer.error));
    for (const frame of changed) {
      if (frame === this.frame) this.staleLabels = true;
      else if (!this.labels.isUnsaved(frame)) this.labels.drop(frame);
    }
    $("frame-count").textContent = `of ${this.state.frames - 1}${this.state.indexed < 1 ? " …" : ""}`;
    $("frame-number").max = this.state.frames - 1;
    this.objects.render();
    this.showFrame();
    this.timeline.redraw();
    this.jobs.update();
    this.showHint();
    if (this.labels.wanted === null) this.goTo(this.state.find(this.state.annotated, -1, 1) ?? 0);
    if (this.staleLabels) this.reloadLabels();
  }

  /** Load the labels of the current frame again, unless an edit of them has begun or is not saved. */
  async reloadLabels() {
    const { frame } = this, { generation } = this.saver, known = this.labels.peek(frame);
    if (!known) return;
    const map = await this.labels.load(frame).catch(() => null);
    const { saver, editor } = this, edited = editor.edit || !saver.saved || generation !== saver.generation;
    if (!map || frame !== this.frame || edited) return;
    this.staleLabels = false;
    known.set(map);
    this.overlay.update();
  }

  showGone(gone) {
    if (!gone && !$("banner").hidden) {
      this.frames.retry();
      this.loadLabels();
      this.saver.run();
    }
    $("banner").hidden = !gone;
    $("banner").textContent = "The server is not running. Everything that was saved is on disk. To resume, run the " +
      `same command again and use the page that it opens.${this.saver.saved ? "" : " The last edit is not saved."}`;
  }
}

function notify(message) {
  const notice = document.createElement("div"), close = document.createElement("button");
  notice.className = "notice";
  close.textContent = "OK";
  close.addEventListener("click", () => notice.remove());
  notice.append(sentence(message), close);
  document.querySelector(".notice")?.remove();
  if (!message) return;
  $("notices").append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}

function isGone(error) { return error instanceof ServerGone || error instanceof SessionTaken; }
function ignoreGone(error) { if (!isGone(error)) notify(error.message); }
function pause(milliseconds) { return new Promise((resolve) => setTimeout(resolve, milliseconds)); }

/** Another window has the clip. Unsaved edits of this one are saved before it is loaded again. */
function showTaken(app) {
  $("app").hidden = true;
  $("taken").hidden = false;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  $("take").onclick = async () => {
    await api.openSession(true);
    app?.saver.run();
    await app?.saver.idle();
    location.reload();
  };
}

const api = new Api(sessionId());

async function start() {
  try {
    await api.openSession(false);
    const clip = await api.json("clip");
    $("app").hidden = false;
    await new App(api, clip).poll();
  } catch (error) {
    if (error instanceof SessionTaken) showTaken(null);
    else if (error instanceof ServerGone) $("gone").hidden = false;
    else throw error;
  }
}

start();
