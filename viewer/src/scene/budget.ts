/**
 * The frame budget, for slow graphics: a frame starts once the last one is on the screen, and draws fewer small blocks if
 * that took long. When the camera rests, a complete frame follows.
 */

const AIM = 40; // milliseconds a frame
const REST = 200; // milliseconds without a frame
const LEAST = 0.02;

export class FrameBudget {
  frameTime = 0; // of the last frame, in milliseconds
  #share = 1;
  #began = 0;
  #fence: WebGLSync | null = null;
  #drawn = 1; // the share in the last frame
  #timer = 0;
  #resting = false;
  #watching = 0;

  constructor(
    private readonly gl: WebGL2RenderingContext,
    private readonly again: () => void,
    private readonly first = (): void => {}, // called when the first frame is on the screen
  ) {}

  /** Whether the graphics processor is still drawing the last frame. */
  get busy(): boolean {
    if (!this.#fence) return false;
    const state = this.gl.clientWaitSync(this.#fence, 0, 0);
    if (state === this.gl.TIMEOUT_EXPIRED) return true;
    this.gl.deleteSync(this.#fence);
    this.#fence = null;
    if (!this.frameTime) this.first();
    this.frameTime = performance.now() - this.#began;
    if (this.frameTime > AIM) this.#share = Math.max(LEAST, this.#drawn * Math.max(0.1, AIM / this.frameTime));
    else if (this.#drawn < 1) this.#share = Math.min(1, this.#drawn * Math.min(1.3, AIM / this.frameTime));
    return false;
  }

  /** Whether the last frame left out some blocks. */
  get incomplete(): boolean {
    return this.#drawn < 1;
  }

  /** Begins a frame; returns the share of small blocks to draw. */
  begin(): number {
    clearTimeout(this.#timer);
    this.#began = performance.now();
    this.#drawn = this.#resting ? 1 : this.#share;
    this.#resting = false;
    if (this.#drawn < 1) this.#waitForRest();
    return this.#drawn;
  }

  /** Requests a complete frame once none has started for a while. */
  #waitForRest(): void {
    this.#timer = window.setTimeout(() => {
      if (this.busy) return this.#waitForRest();
      this.#resting = true;
      this.again();
    }, Math.max(REST, 3 * this.frameTime));
  }

  end(): void {
    this.#fence = this.gl.fenceSync(this.gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    this.gl.flush();
    if (this.#watching === 0) this.#watching = requestAnimationFrame(() => this.#watch());
  }

  /** Polls for the end of the frame: the next one may start much later. */
  #watch(): void {
    this.#watching = this.busy ? requestAnimationFrame(() => this.#watch()) : 0;
  }
}
