/** The tour's player as a pure state machine. */

import { item } from "../checked/item";

export interface Player {
  share: number; // 0…1: the elapsed share of the step's time; 1 while paused on a step
  playing: boolean;
  speed: number;
}

export type Command =
  | { do: "start" } // from the first step, playing
  | { do: "toggle" } // play or pause; at the end: play from the first step
  | { do: "next" }
  | { do: "previous" }
  | { do: "go"; step: string; share?: number }
  | { do: "speed"; speed: number }
  | { do: "tick"; seconds: number } // elapsed time
  | { do: "end" };

/** Each step's duration at normal speed. */
export type Timed = readonly { id: string; seconds: number }[];

export interface Place {
  step: string | null; // null: not started
  player: Player;
}

export const STOPPED: Player = { share: 1, playing: false, speed: 1 };
const REWIND = 2; // seconds into a playing step after which "previous" restarts it

export function play(place: Place, command: Command, steps: Timed): Place {
  const { step, player } = place;
  const now = steps.findIndex(({ id }) => id === step);
  const last = steps.length - 1;
  const to = (n: number, share = player.playing ? 0 : 1, playing = player.playing): Place => ({ step: item(steps, n).id, player: { ...player, share, playing } });
  switch (command.do) {
    case "start":
      return to(0, 0, true);
    case "end":
      return { step: null, player: { ...STOPPED, speed: player.speed } };
    case "speed":
      return { step, player: { ...player, speed: command.speed } };
    case "go": {
      const n = steps.findIndex(({ id }) => id === command.step);
      return n < 0 ? place : to(n, command.share);
    }
  }
  if (now < 0) return place;
  switch (command.do) {
    case "toggle":
      return now === last && player.share >= 1 ? to(0, 0, true) : to(now, player.share, !player.playing);
    case "next":
      return now === last ? to(last, 1, false) : to(now + 1);
    case "previous":
      return to(player.playing && player.share * item(steps, now).seconds > REWIND ? now : Math.max(now - 1, 0));
    case "tick": {
      if (!player.playing) return place;
      const [n, share] = later(now, player.share, command.seconds * player.speed, steps);
      return to(n, share, n < last || share < 1);
    }
  }
}

/** The step and its progress after some seconds; the end of the last step at most. */
function later(from: number, share: number, seconds: number, steps: Timed): [number, number] {
  const lasts = (n: number): number => item(steps, n).seconds;
  let [now, rest] = [from, share * lasts(from) + seconds];
  while (now < steps.length - 1 && rest >= lasts(now)) rest -= lasts(now++);
  return [now, Math.min(rest / lasts(now), 1)];
}

/** The computed share of a step, with pauses at its start and end to read the text and see the result. */
export function computed(share: number): number {
  const [from, until] = [0.12, 0.88];
  return Math.max(0, Math.min((share - from) / (until - from), 1));
}
