/** Requests to the server. */

export class ServerGone extends Error {}
export class SessionTaken extends Error {}

export class Api {
  constructor(session) {
    this.session = session;
  }

  json(path, options) { return this.request(path, options, "json"); }
  blob(path, signal) { return this.request(path, { signal }, "blob"); }
  async bytes(path, options) { return new Uint8Array(await this.request(path, options, "arrayBuffer")); }
  send(method, path, content) { return this.request(path, { method, body: JSON.stringify(content) }, "text"); }

  saveLabels(frame, map) {
    return this.request(`labels/${frame}`, map ? { method: "PUT", body: map } : { method: "DELETE" }, "text");
  }

  openSession(take) { return this.send("POST", "session", { id: this.session, take }); }

  async request(path, options, kind) {
    try {
      const response = await fetch(path, { ...options, headers: { "X-Session": this.session } });
      if (response.ok) return await response[kind]();
      throw failure(response.status, await response.text());
    } catch (error) {
      if (error instanceof TypeError) throw new ServerGone("the server is not running");
      throw error;
    }
  }
}

function failure(status, text) {
  let message = null;
  try {
    message = JSON.parse(text).error;
  } catch {
    // Plain text: another server, whose address has another token, may listen on this port now.
    if (status === 403 || status === 404) return new ServerGone("the server is not running");
  }
  return status === 409 ? new SessionTaken(message) : new Error(message ?? `the server answered ${status}`);
}

/**
 * The id of this window, which a reload keeps. It is not in the storage while the page is open, since the browser
 * copies the storage into a duplicate of the tab.
 */
export function sessionId() {
  const id = sessionStorage.getItem("session") ?? [...crypto.getRandomValues(new Uint32Array(4))].join("-");
  sessionStorage.removeItem("session");
  addEventListener("pagehide", () => sessionStorage.setItem("session", id));
  addEventListener("pageshow", () => sessionStorage.removeItem("session"));
  return id;
}
