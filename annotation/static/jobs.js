/** Controls of propagation and export, and the progress of the job that runs on the server. */

const $ = (id) => document.getElementById(id);

export class Jobs {
  /** @param actions followFrame(frame), notify(message), poll() */
  constructor({ api, clip, state, saver }, actions) {
    Object.assign(this, { api, state, saver, actions, following: true, wantsFollow: true, wasRunning: false });
    $("propagate").addEventListener("click", () => this.propagate());
    $("stop").addEventListener("click", () => this.post("stop", {}));
    $("export-stop").addEventListener("click", () => this.post("stop", {}));
    $("export").addEventListener("click", () => $("export-dialog").showModal());
    $("export-start").addEventListener("click", () => this.post("export", { kinds: this.exportKinds }));
    $("export-kinds").addEventListener("change", () => this.update());
    $("folder").textContent = clip.folder;
    $("command").textContent = clip.command;
    $("copy-command").addEventListener("click", () => navigator.clipboard.writeText($("command").textContent));
    $("direction").addEventListener("change", () => this.update());
    $("follow").addEventListener("change", () => (this.following = this.wantsFollow = $("follow").checked));
  }

  get running() { return this.state.job?.status === "running"; }
  get propagating() { return this.running && this.state.job.kind === "propagate"; }

  propagate() {
    const until = $("until-option").hidden || $("until").value === "" ? null : Math.trunc($("until").value);
    $("follow").checked = this.following = this.wantsFollow;
    this.post("propagate", { direction: $("direction").value, until });
  }

  get exportKinds() { return [...$("export-kinds").querySelectorAll(":checked")].map((input) => input.value); }

  async post(path, content) {
    try {
      const starts = path !== "stop";
      if (starts && this.saver.error) throw new Error("The last edit is not saved; press Retry first.");
      if (starts) await this.saver.idle();
      await this.api.send("POST", path, content);
      this.wasRunning = starts;                     // also if the job ends before the next poll
      if (starts) this.actions.notify("");
      this.actions.poll();
    } catch (error) {
      this.actions.notify(error.message);
    }
  }

  /** The user looks at or paints another frame than the latest one. */
  stopFollowing() { if (this.propagating) $("follow").checked = this.following = false; }

  update() {
    const { job } = this.state, { running, propagating } = this;
    $("propagate").hidden = propagating;
    $("stop").hidden = !propagating;
    $("propagate").disabled = running || !this.state.isAnnotated;
    $("propagate-options").hidden = propagating;
    $("progress").hidden = !propagating;
    $("until-option").hidden = $("direction").value === "both";
    $("until").max = this.state.frames - 1;
    this.updateExport();
    if (propagating) {
      show($("progress-bar"), job);
      $("progress-text").textContent = sentence(job.message) || progressText(job);
    }
    if ((propagating || this.wasRunning) && this.following && job.frame !== null) this.actions.followFrame(job.frame);
    if (this.wasRunning && !running && !$("export-dialog").open) this.actions.notify(this.ended(job));
    this.wasRunning = running;
  }

  ended({ kind, status, message }) {
    if (kind !== "propagate" || status !== "done") return message;
    const doubtful = this.state.doubtful.reduce((count, mark) => count + mark, 0);
    return `${message}. ` + (doubtful ? `${doubtful} doubtful: press Next doubtful to check them.`
      : "Check the result, then press Export.");
  }

  updateExport() {
    const { job } = this.state, exporting = this.running && job.kind === "export";
    $("export-start").disabled = this.running || !this.exportKinds.length;
    $("export-stop").hidden = $("export-bar").hidden = !exporting;
    if (exporting) show($("export-bar"), job);
    const text = job?.kind !== "export" ? "" : job.status === "stopped" ? "Stopped." : job.message || progressText(job);
    $("export-text").textContent = this.propagating ? "A propagation is running." : sentence(text);
  }
}

function show(bar, { done, total }) {
  if (total) Object.assign(bar, { max: total, value: done });
  else bar.removeAttribute("value");
}

function progressText({ done, total, rate, seconds_left: left }) {
  const parts = [`${done} of ${total}`];
  if (rate) parts.push(`${rate.toFixed(rate < 10 ? 1 : 0)} frames/s`);
  if (left !== null && done < total) parts.push(`${duration(left)} left`);
  return total ? parts.join(" · ") : "Starting…";
}

function duration(seconds) {
  const whole = Math.ceil(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function sentence(text) { return text.charAt(0).toUpperCase() + text.slice(1); }
