/** The tokens that a trace was computed over: all that was fed, which the last new one was not. */

import type { Trace } from "../api/service";

export interface Fed {
  token: number;
  text: string;
  made: boolean; // by the model
}

export function fedOf(trace: Trace): Fed[] {
  const given = trace.pieces.map(({ token, text }) => ({ token, text, made: false }));
  const made = (trace.generated ?? []).slice(0, -1).map(({ token, text }) => ({ token, text, made: true }));
  return [...given, ...made];
}

/** The position whose distribution is the newest after so many new tokens (null: all of them). */
export function lastPosition(trace: Trace, step: number | null): number {
  const last = fedOf(trace).length - 1;
  return step === null ? last : Math.min(trace.pieces.length - 1 + Math.max(step - 1, 0), last);
}

/** A token's text where one can see it: spaces and line ends as signs. */
export function visible(text: string): string {
  return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
}
