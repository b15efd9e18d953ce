/** Edits of the labels: shown and saved at once, undone and redone. */
import { Edit, History } from "./history.js";
import { decode } from "./raster.js";

export class Editor {
  /**
   * @param actions goTo(frame), onEdit(), onHistory(), notify(message)
   */
  constructor({ api, clip, state, labels, saver, overlay, objects }, actions) {
    Object.assign(this, { api, clip, state, labels, saver, overlay, objects, actions });
    this.history = new History(actions.onHistory);
    this.frame = null;          // the frame that is displayed with its labels
    this.hints = null;          // for GrabCut, see hints.js
    this.edit = null;
    this.steps = Promise.resolve();
  }

  get label() { return this.objects.selected; }
  get map() { return this.frame === this.labels.wanted ? this.labels.peek(this.frame) : undefined; }

  /** Start an edit of the displayed frame; null while its labels are not there yet. */
  begin() {
    if (!this.map) return null;
    this.objects.ensureSelected();
    this.edit = new Edit(this.frame, this.map);
    return this.edit;
  }

  /** Remove the mask of the displayed frame. */
  clear() {
    const edit = this.begin();
    if (!edit) return;
    edit.map.fill(0);
    this.commit(edit, null, false);
  }

  cancel() {
    this.edit.revert();
    this.edit = null;
    this.overlay.update();
  }

  commit(edit, hints = this.hints, report = true) {
    const change = edit.change(this.clip.width), { frame, map } = edit;
    if (edit === this.edit) this.edit = null;
    if (!change) {
      this.hints = hints;
      return;
    }
    const { rect, before, after } = change;
    this.history.add({ frame, before, after, annotated: this.state.annotated[frame], hints: [this.hints, hints] });
    this.hints = hints;
    this.changed(frame, map, rect);
    if (report) this.reportErased(before, map);
  }

  changed(frame, map, rect) {
    this.save(frame, isEmpty(map) ? null : map);
    if (frame === this.frame) this.overlay.update(rect);
    this.actions.onEdit();
  }

  save(frame, map) {
    this.state.annotated[frame] = map !== null;
    const body = map && map.slice();
    this.saver.add(`labels/${frame}`, () => this.api.saveLabels(frame, body));
  }

  /** Undo the latest edit, or redo the one that was undone last. */
  step(redo) {
    if (this.edit) return;
    const entry = this.history.take(redo);
    if (!entry) return;
    this.actions.goTo(entry.frame);
    this.steps = this.steps.then(() => this.restore(entry, redo)).catch((error) => this.actions.notify(error.message));
  }

  async restore(entry, redo) {
    const map = await this.labels.get(entry.frame), runs = redo ? entry.after : entry.before;
    decode(runs, map);
    this.hints = entry.hints[redo ? 1 : 0];
    this.objects.ensure(runs.reduce((found, run) => found.add(run & 255), new Set()));
    this.changed(entry.frame, redo || entry.annotated ? map : new Uint8Array());
  }

  reportErased(before, map) {
    const erased = [...new Set(before.map((run) => run & 255))].find((label) => label && !map.includes(label));
    if (erased === undefined) return;
    this.actions.notify(`${this.objects.nameOf(erased)} has no pixels in this mask now. This does not mark it as ` +
      "absent: a propagation keeps its prediction on this frame. Correct the first frame on which it is wrong.");
  }
}

function isEmpty(map) { return map.every((label) => label === 0); }
