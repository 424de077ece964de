/**
 * The device's place in its user's inbox: every item up to `pos` is on this device's disk.
 *
 * Items are numbered without gaps, so a number alone tells what an item is: one that was here before, the next one, or one
 * behind something that is missing. `void` and `batch` stand for all of `from` … `pos`.
 */
export class Cursor {
  /** `pos` is null until the server has said where a new device begins. */
  constructor(pos = null, epoch = null) {
    this.pos = pos;
    this.epoch = epoch;
  }

  /** The items of a packet: those of a batch, or the one. */
  static itemsOf(packet) {
    return packet.op === "batch" ? packet.items : [packet];
  }

  /** Whether one of `packets` lies behind something that neither was here before nor stands in front of it. */
  misses(packets) {
    let { pos } = this;
    for (const { op, from, pos: at, dup } of packets) {
      if (at === undefined || dup || at <= pos) continue;
      if ((op === "void" ? from : at) > pos + 1) return true;
      pos = at;
    }
    return false;
  }

  /**
   * What a `welcome` means: `go` (items follow where this device stopped), or `start` (over, from the server's present state: the
   * device is new, the store is another one, something is gone, or so much is missing that fetching it all would be slower).
   */
  judge(welcome, tooFar = Infinity) {
    if (this.pos === null || this.epoch !== welcome.epoch) return "start";
    if (this.pos < welcome.floor || this.pos > welcome.head) return "start";
    return welcome.head - this.pos > tooFar ? "start" : "go";
  }
}
