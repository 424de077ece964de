/** Brings the files of waiting messages to the server, one at a time; then their messages may go. */

const AGAIN_MS = 5_000;

export class Uploads {
  #messenger;
  #upload;
  #isBusy = false;

  /** `upload(blob, name, progress)` returns the file's id, or raises an error with `final` where trying again is in vain. */
  constructor(messenger, upload) {
    this.#messenger = messenger;
    this.#upload = upload;
  }

  async next() {
    if (this.#isBusy || !this.#upload) return;
    const messenger = this.#messenger;
    const entry = messenger.outbox.waiting.find((each) => each.held);
    if (!entry) return;
    this.#isBusy = true;
    try {
      await this.#bring(entry);
    } catch (error) {
      if (!error.final) {
        setTimeout(() => messenger.pump(), AGAIN_MS);
        return;
      }
      entry.error = { code: error.code ?? "failed", message: error.message };
      await messenger.store.commit({ entries: [entry] });
      messenger.emit("outbox", messenger.outbox.entries);
    } finally {
      this.#isBusy = false;
    }
    messenger.pump();
  }

  async #bring(entry) {
    const messenger = this.#messenger;
    for (const upload of entry.uploads) {
      if (upload.file) continue;
      upload.file = await this.#upload(upload.blob, upload.name, (share) => messenger.emit("progress", { id: entry.id, share }));
      await messenger.store.commit({ entries: [entry] }); // not brought twice after a kill
    }
    entry.fields = { ...entry.fields, files: entry.uploads.map(({ file }) => file) };
    entry.held = false;
    await messenger.store.commit({ entries: [entry] });
  }
}
