// y[t, h] = Σ_j p[j] v[j] / Σ_j p[j], p[j] = exp(soft_cap(SCALE q[t, h]·k[j])), over the positions j that row t sees:
// attention of many query rows, by tiles, with the softmax computed as the tiles go by (Dao et al. 2022, FlashAttention).
//
// A row of the tile is a query row and one of the TILE_HEADS query heads that share a key head, so keys and values are
// read once for all of them. For each TILE_KEYS positions:
// 1. scores: a lane computes blocks of 4 rows by 4 positions, from q and k as they lie (each element is used 4 times);
// 2. softmax: lane r keeps the greatest score and the sum of row r, and says by how much earlier sums shrink;
// 3. values: a lane owns four columns of LANE_ROWS rows; it reads each v once and all lanes broadcast the weights.
// Positions outside the union of the rows' ranges are never read; within it, hidden ones get weight 0.
//
// Grid: x is tiles of query rows, y is key heads, in HEAD_PARTS parts where a key head serves more than a tile holds.

const HIDDEN: f32 = -3.0e38;
const KEY_VECTORS: u32 = TILE_KEYS / 4u;
// One more than needed, so rows begin in different memory banks.
const PITCH: u32 = KEY_VECTORS + 1u;
const HEAD_LANES: u32 = COLUMNS;

var<workgroup> scores: array<vec4<f32>, TILE_ROWS * PITCH>;
var<workgroup> factors: array<f32, TILE_ROWS>;

// Weighted sums of v: the lane's columns, its LANE_ROWS rows.
var<private> sum0: vec4<f32>;
var<private> sum1: vec4<f32>;
var<private> sum2: vec4<f32>;
var<private> sum3: vec4<f32>;
var<private> sum4: vec4<f32>;
var<private> sum5: vec4<f32>;
var<private> sum6: vec4<f32>;
var<private> sum7: vec4<f32>;
var<private> sum8: vec4<f32>;
var<private> sum9: vec4<f32>;
var<private> sum10: vec4<f32>;
var<private> sum11: vec4<f32>;
var<private> sum12: vec4<f32>;
var<private> sum13: vec4<f32>;
var<private> sum14: vec4<f32>;
var<private> sum15: vec4<f32>;

// Where a workgroup is: its first query row, its key head, and the first of its query heads.
struct Place { token: u32, kv_head: u32, head: u32, heads: u32 }

fn query_row(place: Place, row: u32) -> u32 { return min(place.token + row / TILE_HEADS, rows() - 1u); }

fn query_head(place: Place, row: u32) -> u32 { return place.head + min(row % TILE_HEADS, place.heads - 1u); }

// Whether the row of the tile is one of y.
fn exists(place: Place, row: u32) -> bool {
    return row < TILE_TOKENS * TILE_HEADS && row % TILE_HEADS < place.heads && place.token + row / TILE_HEADS < rows();
}

fn masked(scores: vec4<f32>, t: u32, key: u32) -> vec4<f32> {
    let capped = vec4<f32>(
        soft_cap(scores.x * SCALE), soft_cap(scores.y * SCALE), soft_cap(scores.z * SCALE), soft_cap(scores.w * SCALE));
    let keys = vec4<u32>(key, key + 1u, key + 2u, key + 3u);
    let visible = (keys >= vec4<u32>(keys_begin(t))) & (keys < vec4<u32>(keys_end(t)));
    return select(vec4<f32>(HIDDEN), capped, visible);
}

// Scores of 4 rows of the tile and 4 positions; positions from `end` on are not read.
fn score_block(place: Place, row: u32, key: u32, tile_key: u32, end: u32) {
    let t = vec4<u32>(
        query_row(place, row), query_row(place, row + 1u), query_row(place, row + 2u), query_row(place, row + 3u));
    let h = vec4<u32>(
        query_head(place, row), query_head(place, row + 1u), query_head(place, row + 2u), query_head(place, row + 3u));
    let keys = min(vec4<u32>(key, key + 1u, key + 2u, key + 3u), vec4<u32>(end - 1u));
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var c = 0u; c < COLUMNS; c++) {
        let k = mat4x4<f32>(
            k4(keys.x, place.kv_head, c), k4(keys.y, place.kv_head, c),
            k4(keys.z, place.kv_head, c), k4(keys.w, place.kv_head, c));
        s0 += q4(t.x, h.x, c) * k;
        s1 += q4(t.y, h.y, c) * k;
        s2 += q4(t.z, h.z, c) * k;
        s3 += q4(t.w, h.w, c) * k;
    }
    let at = row * PITCH + tile_key;
    scores[at] = masked(s0, t.x, key);
    scores[at + PITCH] = masked(s1, t.y, key);
    scores[at + 2u * PITCH] = masked(s2, t.z, key);
    scores[at + 3u * PITCH] = masked(s3, t.w, key);
}

fn rescale(base: u32) {
    sum0 *= factors[base];
    sum1 *= factors[base + 1u];
    sum2 *= factors[base + 2u];
    sum3 *= factors[base + 3u];
    sum4 *= factors[base + 4u];
    sum5 *= factors[base + 5u];
    sum6 *= factors[base + 6u];
    sum7 *= factors[base + 7u];
    sum8 *= factors[base + 8u];
    sum9 *= factors[base + 9u];
    sum10 *= factors[base + 10u];
    sum11 *= factors[base + 11u];
    sum12 *= factors[base + 12u];
    sum13 *= factors[base + 13u];
    sum14 *= factors[base + 14u];
    sum15 *= factors[base + 15u];
}

// Adds four positions: v's columns are theirs, `at` is where row 0's weights for them lie.
fn step(v: mat4x4<f32>, at: u32) {
    sum0 += v * scores[at];
    sum1 += v * scores[at + PITCH];
    sum2 += v * scores[at + 2u * PITCH];
    sum3 += v * scores[at + 3u * PITCH];
    sum4 += v * scores[at + 4u * PITCH];
    sum5 += v * scores[at + 5u * PITCH];
    sum6 += v * scores[at + 6u * PITCH];
    sum7 += v * scores[at + 7u * PITCH];
    sum8 += v * scores[at + 8u * PITCH];
    sum9 += v * scores[at + 9u * PITCH];
    sum10 += v * scores[at + 10u * PITCH];
    sum11 += v * scores[at + 11u * PITCH];
    sum12 += v * scores[at + 12u * PITCH];
    sum13 += v * scores[at + 13u * PITCH];
    sum14 += v * scores[at + 14u * PITCH];
    sum15 += v * scores[at + 15u * PITCH];
}

fn output_row(place: Place, row: u32, column: u32, sum: vec4<f32>) {
    if (!exists(place, row)) { return; }
    let index = (query_row(place, row) * HEADS + query_head(place, row)) * HEAD_DIM + 4u * column;
    let result = sum * factors[row];
    y[index] = result.x;
    if (4u * column + 1u < HEAD_DIM) { y[index + 1u] = result.y; }
    if (4u * column + 2u < HEAD_DIM) { y[index + 2u] = result.z; }
    if (4u * column + 3u < HEAD_DIM) { y[index + 3u] = result.w; }
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    var place: Place;
    place.token = workgroup.x * TILE_TOKENS;
    place.kv_head = workgroup.y / HEAD_PARTS;
    let part = workgroup.y % HEAD_PARTS * TILE_HEADS;
    place.head = place.kv_head * GROUP + part;
    place.heads = min(TILE_HEADS, GROUP - part);
    let last = min(place.token + TILE_TOKENS, rows()) - 1u;
    let end = keys_end(last);

    let column = lane % HEAD_LANES;
    let base = lane / HEAD_LANES * LANE_ROWS;
    let owns_columns = base < TILE_ROWS;
    var greatest = HIDDEN;
    var total = 0.0;
    for (var key = keys_begin(place.token); key < end; key += TILE_KEYS) {
        for (var block = lane; block < TILE_ROWS / 4u * KEY_VECTORS; block += LANES) {
            let tile_key = block % KEY_VECTORS;
            score_block(place, block / KEY_VECTORS * 4u, key + 4u * tile_key, tile_key, end);
        }
        workgroupBarrier();
        if (lane < TILE_ROWS) {
            var top = vec4<f32>(greatest);
            for (var i = 0u; i < KEY_VECTORS; i++) { top = max(top, scores[lane * PITCH + i]); }
            let new_greatest = max(max(top.x, top.y), max(top.z, top.w));
            let factor = exp(greatest - new_greatest);
            greatest = new_greatest;
            var sums = vec4<f32>();
            for (var i = 0u; i < KEY_VECTORS; i++) {
                let score = scores[lane * PITCH + i];
                let weight = select(vec4<f32>(), exp(score - greatest), score > vec4<f32>(HIDDEN));
                scores[lane * PITCH + i] = weight;
                sums += weight;
            }
            total = total * factor + dot(sums, vec4<f32>(1.0));
            factors[lane] = factor;
        }
        workgroupBarrier();
        if (owns_columns) {
            rescale(base);
            for (var i = 0u; i < KEY_VECTORS; i++) {
                let first = key + 4u * i;
                if (first >= end) { break; }
                let keys = min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(end - 1u));
                step(mat4x4<f32>(
                    v4(keys.x, place.kv_head, column), v4(keys.y, place.kv_head, column),
                    v4(keys.z, place.kv_head, column), v4(keys.w, place.kv_head, column)), base * PITCH + i);
            }
        }
        workgroupBarrier();
    }
    if (lane < TILE_ROWS) { factors[lane] = select(0.0, 1.0 / max(total, 1.0e-30), total > 0.0); }
    workgroupBarrier();
    if (owns_columns) {
        output_row(place, base, column, sum0);
        output_row(place, base + 1u, column, sum1);
        output_row(place, base + 2u, column, sum2);
        output_row(place, base + 3u, column, sum3);
        output_row(place, base + 4u, column, sum4);
        output_row(place, base + 5u, column, sum5);
        output_row(place, base + 6u, column, sum6);
        output_row(place, base + 7u, column, sum7);
        output_row(place, base + 8u, column, sum8);
        output_row(place, base + 9u, column, sum9);
        output_row(place, base + 10u, column, sum10);
        output_row(place, base + 11u, column, sum11);
        output_row(place, base + 12u, column, sum12);
        output_row(place, base + 13u, column, sum13);
        output_row(place, base + 14u, column, sum14);
        output_row(place, base + 15u, column, sum15);
    }
}
