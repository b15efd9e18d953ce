/** Queue of unsaved changes, which are sent one after the other. */

export class Saver {
  constructor(onChange) {
    this.onChange = onChange;
    this.queue = [];
    this.sending = null;
    this.error = null;
    this.generation = 0;
    this.waiting = [];
  }

  get saved() { return this.queue.length === 0; }
  has(key) { return this.queue.some((change) => change.key === key); }

  /** Send a change. It replaces the last one in the queue if that has the same key. */
  add(key, send) {
    const last = this.queue.at(-1);
    if (last && last.key === key && last !== this.sending) last.send = send;
    else this.queue.push({ key, send });
    this.generation++;
    this.run();
  }

  async run() {
    if (this.sending) return;
    this.error = null;
    while (!this.saved) {
      this.sending = this.queue[0];
      this.onChange();
      try {
        await this.sending.send();
      } catch (error) {
        this.error = error;
        break;
      } finally {
        this.sending = null;
      }
      this.queue.shift();
      this.generation++;
    }
    this.onChange();
    if (this.saved) this.waiting.splice(0).forEach((resolve) => resolve());
  }

  /** A promise that everything is saved. */
  idle() { return this.saved ? Promise.resolve() : new Promise((resolve) => this.waiting.push(resolve)); }
}
