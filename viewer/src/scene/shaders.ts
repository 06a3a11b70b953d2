/** The shaders of blocks and cells. */

import { ROW } from "./heap";

export const RECORD = 6; // texels per block
export const BLOCKS_A_ROW = 256;

const PRECISION = `
precision highp float;
precision highp int;
`;

/**
 * Vertices are computed from their number alone: instances are slow in software renderers, vertices are not. Three sides
 * of a box face the camera and are drawn (FACES 3), or only the front (FACES 1).
 */
const CORNER = `
invariant gl_Position; // the depth of a corner is the same whichever program draws it
uniform highp sampler2D uBlocks; // RECORD texels a block
uniform mat4 modelViewMatrix;
uniform mat4 projectionMatrix;
const vec2 CORNERS[6] = vec2[6](vec2(0, 0), vec2(1, 0), vec2(1, 1), vec2(0, 0), vec2(1, 1), vec2(0, 1));

vec4 record(int block, int n) {
  return texelFetch(uBlocks, ivec2(${RECORD} * (block % ${BLOCKS_A_ROW}) + n, block / ${BLOCKS_A_ROW}), 0);
}

// The corner of this vertex in shares of the block's size; axis: the normal of its side.
vec3 corner(vec3 least, vec3 size, out int axis) {
  vec2 on = CORNERS[gl_VertexID % 6];
  vec3 camera = -transpose(mat3(modelViewMatrix)) * modelViewMatrix[3].xyz;
  vec3 side = step(least + 0.5 * size, camera);
  axis = FACES == 1 ? 2 : (gl_VertexID / 6) % 3;
  return axis == 2 ? vec3(on, side.z) : axis == 1 ? vec3(on.x, side.y, on.y) : vec3(side.x, on);
}

const float SHADES[3] = float[3](0.84, 0.72, 1.0);
`;

/** A distant block: a box in one colour. */
export const PLAIN_VERTEX = `${PRECISION}${CORNER}
uniform vec3 uHues[4]; // weights above and below 0, values above and below 0
uniform vec3 uGround[2]; // of weights and of values near 0
uniform bool uDim; // whether blocks without emphasis are dimmed
flat out vec3 vColour;
void main() {
  int block = gl_VertexID / (6 * FACES);
  vec4 place = record(block, 0); // least corner, role
  vec4 extent = record(block, 1); // size, emphasis
  int axis;
  vec3 at = corner(place.xyz, extent.xyz, axis);
  int kind = place.w < 0.5 ? 0 : 1;
  vec3 plain = mix(uGround[kind], uHues[2 * kind], place.w > 1.5 ? 0.7 : 0.5);
  vColour = plain * SHADES[axis] * (uDim && extent.w < 0.5 ? 0.25 : 1.0);
  gl_Position = projectionMatrix * modelViewMatrix * vec4(place.xyz + at * extent.xyz, 1.0);
}`;

export const PLAIN_FRAGMENT = `${PRECISION}
flat in vec3 vColour;
out vec4 colour;
void main() { colour = vec4(vColour, 1.0); }`;

export const CELLS_VERTEX = `${PRECISION}${CORNER}
out vec2 vCell;
flat out float vShade;
flat out vec4 vTone, vBase, vFine, vPart;
flat out vec2 vCells;
void main() {
  int block = gl_VertexID / (6 * FACES);
  vec4 place = record(block, 0); // least corner, role
  vec4 extent = record(block, 1); // size, emphasis
  vec4 more = record(block, 2); // cells, which axes are positions (bits), 1 / scale of its values
  vBase = record(block, 3); // coarse values: start in the heap (-1: none), values per row, cells per value
  vFine = record(block, 4); // fine values of a part, the same
  vPart = record(block, 5); // that part: i0, j0, i1, j1
  int axis;
  vec3 at = corner(place.xyz, extent.xyz, axis);
  vCells = more.xy;
  vCell = at.xy * vCells;
  vTone = vec4(place.w, more.z, extent.w, more.w);
  vShade = SHADES[axis];
  gl_Position = projectionMatrix * modelViewMatrix * vec4(place.xyz + at * extent.xyz, 1.0);
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
uniform float uRange; // the value for full brightness in all blocks; 0: each block's own
uniform float uShown; // the number of positions at the view's step
uniform float uReveal; // the filled share of highlighted blocks
out vec4 colour;

float heap(int n) {
  int texel = n >> 2;
  return texelFetch(uHeap, ivec2(texel & ${ROW / 4 - 1}, texel >> ${Math.log2(ROW / 4)}), 0)[n & 3];
}

float value(vec2 cell) {
  vec2 c = clamp(cell, vec2(0.0), vCells - 1.0);
  bool fine = vFine.x >= 0.0 && c.x >= vPart.x && c.y >= vPart.y && c.x < vPart.z && c.y < vPart.w;
  vec4 from = fine ? vFine : vBase;
  ivec2 t = ivec2((fine ? c - vPart.xy : c) / from.zw);
  return heap(int(from.x) + t.y * int(from.y) + t.x);
}

vec3 tone(float v, int kind) {
  if (isinf(v) || isnan(v)) return uGround[kind] * 0.45; // masked
  float m = min(abs(v) * (uRange > 0.0 ? 1.0 / uRange : vTone.w) * uGain, 1.0);
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
  } else { // a pixel that covers several cells averages four samples
    int looks = max(wide.x, wide.y) < 0.75 ? 1 : 4;
    seen = vec3(0.0);
    for (int n = 0; n < looks; n++) {
      vec2 off = looks == 1 ? vec2(0.0) : vec2(n == 0 || n == 3 ? -0.25 : 0.25, n < 2 ? -0.3 : 0.3);
      seen += tone(value(floor(vCell + off * wide)), kind);
    }
    seen /= float(looks);
  }
  vec2 to = abs(fract(vCell - 0.5) - 0.5) / max(wide, vec2(1e-6)); // pixels to the next border of a cell
  float near = 1.0 - clamp(min(to.x, to.y) - 0.35, 0.0, 1.0);
  seen = mix(seen, uLine, 0.55 * near * smoothstep(0.28, 0.08, max(wide.x, wide.y)));
  vec2 rim = min(vCell, vCells - vCell) / max(wide, vec2(1e-6)); // pixels to the edge of the block
  float edge = 1.0 - clamp(min(rim.x, rim.y) - 0.2, 0.0, 1.0);
  int axes = int(vTone.y);
  bool late = ((axes & 1) == 1 && cell.x >= uShown) || ((axes & 2) == 2 && cell.y >= uShown);
  if (late) seen = mix(seen, uGround[kind] * 0.5, 0.88);
  float turn = axes == 1 ? cell.x * vCells.y + cell.y : cell.y * vCells.x + cell.x; // in order of computation
  if (vTone.z > 1.5 && turn >= uReveal * vCells.x * vCells.y) seen = uGround[kind] * 0.6;
  seen *= vShade * (uDim && vTone.z < 0.5 ? 0.22 : 1.0);
  vec3 rimmed = vTone.z > 1.5 ? vec3(1.0, 0.95, 0.75) : uHues[2 * kind] * vShade * (uDim ? 0.25 : 0.75);
  colour = vec4(mix(seen, rimmed, edge * (vTone.z > 1.5 ? 0.9 : 0.5)), 1.0);
}`;
