/** What the graphics processor runs: a box for each block, and on it every cell that is large enough to be seen. */

import { ROW } from "./heap";

const PRECISION = `
precision highp float;
precision highp int;
`;

/** Of a box far away: a place and one colour. */
export const PLAIN_VERTEX = `${PRECISION}
in vec3 position;
in vec3 normal;
in vec3 aMin;
in vec3 aSize;
in vec4 aTone; // role, which axes are positions (bits), emphasis, 1 / scale of its values
uniform mat4 modelViewMatrix;
uniform mat4 projectionMatrix;
uniform vec3 uHues[4]; // weights above and below 0, values above and below 0
uniform vec3 uGround[2]; // of weights and of values near 0
uniform bool uDim; // whether what is not emphasised steps back
flat out vec3 vColour;
void main() {
  int kind = aTone.x < 0.5 ? 0 : 1;
  vec3 plain = mix(uGround[kind], uHues[2 * kind], aTone.x > 1.5 ? 0.7 : 0.5);
  float shade = abs(normal.z) > 0.5 ? 1.0 : abs(normal.y) > 0.5 ? 0.72 : 0.84;
  vColour = plain * shade * (uDim && aTone.z < 0.5 ? 0.25 : 1.0);
  gl_Position = projectionMatrix * modelViewMatrix * vec4(aMin + position * aSize, 1.0);
}`;

export const PLAIN_FRAGMENT = `${PRECISION}
flat in vec3 vColour;
out vec4 colour;
void main() { colour = vec4(vColour, 1.0); }`;

export const CELLS_VERTEX = `${PRECISION}
in vec3 position;
in vec3 normal;
in vec3 aMin;
in vec3 aSize;
in vec2 aCells;
in vec4 aTone;
in vec4 aBase; // all of it: where in the heap (-1: nowhere), values in a row, cells that a value stands for in x and y
in vec4 aFine; // a part of it, more finely
in vec4 aPart; // that part: i0, j0, i1, j1
uniform mat4 modelViewMatrix;
uniform mat4 projectionMatrix;
out vec2 vCell;
flat out float vShade;
flat out vec4 vTone, vBase, vFine, vPart;
flat out vec2 vCells;
void main() {
  vCell = position.xy * aCells;
  vCells = aCells;
  vTone = aTone;
  vBase = aBase;
  vFine = aFine;
  vPart = aPart;
  vShade = abs(normal.z) > 0.5 ? 1.0 : abs(normal.y) > 0.5 ? 0.72 : 0.84;
  gl_Position = projectionMatrix * modelViewMatrix * vec4(aMin + position * aSize, 1.0);
}`;

export const CELLS_FRAGMENT = `${PRECISION}
in vec2 vCell;
flat in float vShade;
flat in vec4 vTone, vBase, vFine, vPart;
flat in vec2 vCells;
uniform highp sampler2D uHeap;
uniform vec3 uHues[4];
uniform vec3 uGround[2];
uniform vec3 uLine;
uniform bool uDim;
uniform float uLog; // 0: linear, 1: logarithmic
uniform float uGain;
uniform float uShown; // positions that there are at this step
uniform float uReveal; // how much of what is emphasised is computed
out vec4 colour;

float heap(int n) {
  int texel = n >> 2;
  return texelFetch(uHeap, ivec2(texel & ${ROW / 4 - 1}, texel >> ${Math.log2(ROW / 4)}), 0)[n & 3];
}

float value(vec2 cell) {
  vec2 c = clamp(cell, vec2(0.0), vCells - 1.0);
  if (vFine.x >= 0.0 && c.x >= vPart.x && c.y >= vPart.y && c.x < vPart.z && c.y < vPart.w) {
    ivec2 t = ivec2((c - vPart.xy) / vFine.zw);
    return heap(int(vFine.x) + t.y * int(vFine.y) + t.x);
  }
  ivec2 t = ivec2(c / vBase.zw);
  return heap(int(vBase.x) + t.y * int(vBase.y) + t.x);
}

vec3 tone(float v, int kind) {
  if (isinf(v) || isnan(v)) return uGround[kind] * 0.45; // masked
  float m = min(abs(v) * vTone.w * uGain, 1.0);
  m = mix(m, log2(1.0 + 1023.0 * m) / 10.0, uLog);
  vec3 hue = uHues[2 * kind + (v < 0.0 ? 1 : 0)];
  return mix(uGround[kind], hue, m);
}

void main() {
  int kind = vTone.x < 0.5 ? 0 : 1;
  vec2 wide = fwidth(vCell); // cells that a pixel covers
  vec2 cell = floor(clamp(vCell, vec2(0.0), vCells - 0.001));
  vec3 seen;
  if (vBase.x < 0.0 && vFine.x < 0.0) {
    seen = mix(uGround[kind], uHues[2 * kind], vTone.x > 1.5 ? 0.45 : 0.3);
  } else if (max(wide.x, wide.y) < 0.75) {
    seen = tone(value(cell), kind);
  } else { // several cells in a pixel: as many of them as is worth the time
    seen = vec3(0.0);
    for (int n = 0; n < 4; n++) {
      vec2 off = vec2(n == 0 || n == 3 ? -0.25 : 0.25, n < 2 ? -0.3 : 0.3);
      seen += 0.25 * tone(value(floor(vCell + off * wide)), kind);
    }
  }
  vec2 to = abs(fract(vCell - 0.5) - 0.5) / max(wide, vec2(1e-6)); // pixels to the next border of a cell
  float near = 1.0 - clamp(min(to.x, to.y) - 0.35, 0.0, 1.0);
  seen = mix(seen, uLine, 0.55 * near * smoothstep(0.28, 0.08, max(wide.x, wide.y)));
  vec2 rim = min(vCell, vCells - vCell) / max(wide, vec2(1e-6)); // pixels to the edge of the block
  float edge = 1.0 - clamp(min(rim.x, rim.y) - 0.2, 0.0, 1.0);
  int axes = int(vTone.y);
  bool late = ((axes & 1) == 1 && cell.x >= uShown) || ((axes & 2) == 2 && cell.y >= uShown);
  if (late) seen = mix(seen, uGround[kind] * 0.5, 0.88);
  if (vTone.z > 0.5 && (cell.y * vCells.x + cell.x) >= uReveal * vCells.x * vCells.y) seen = uGround[kind] * 0.6;
  seen *= vShade * (uDim && vTone.z < 0.5 ? 0.22 : 1.0);
  vec3 rimmed = vTone.z > 0.5 ? vec3(1.0, 0.95, 0.75) : uHues[2 * kind] * vShade * (uDim ? 0.25 : 0.75);
  colour = vec4(mix(seen, rimmed, edge * (vTone.z > 0.5 ? 0.9 : 0.5)), 1.0);
}`;
