/** Named events. A listener that throws does not keep the others from hearing. */
export class Emitter {
  #listeners = new Map();

  /** Calls `listener` at each `name`; the function that ends it is returned. */
  on(name, listener) {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(listener));
    return () => set.delete(listener);
  }

  emit(name, data) {
    for (const listener of [...(this.#listeners.get(name) ?? []), ...(this.#listeners.get("*") ?? [])]) {
      try {
        listener(data, name);
      } catch (error) {
        console.error(error);
      }
    }
  }
}
