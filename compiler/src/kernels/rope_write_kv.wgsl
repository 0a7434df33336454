// Row t of qkv is HEADS query heads, then KV_HEADS key heads, then KV_HEADS value heads, of HEAD_DIM elements each.
// Query and key heads are rotated by (position + t) * inverse_frequencies: element i with i + HEAD_DIM / 2. Queries go to q[t],
// keys and values to row position + t of their states.
//
// One lane for each two adjacent elements of the result: where states are f16, that is one whole word, so no word is
// written by two lanes. It reads the other halves of both pairs, which another lane reads too: from the cache.
//
// Grid: x is the words of a row of qkv, y is rows.

const HALF: u32 = HEAD_DIM / 2u;

// Element `i` of the head that begins at `start` of qkv, rotated.
fn rotated(start: u32, i: u32, position: u32) -> f32 {
    let pair = select(i, i - HALF, i >= HALF);
    let angle = angle_of(position, inverse_frequencies[pair]);
    let a = qkv[start + pair];
    let b = qkv[start + pair + HALF];
    return MAGNITUDE * select(a * cos(angle) - b * sin(angle), b * cos(angle) + a * sin(angle), i >= HALF);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let t = id.y;
    let head = id.x / HALF;
    if (head >= HEADS + 2u * KV_HEADS || t >= rows()) { return; }
    let i = id.x % HALF * 2u;
    let position = call.position + t;
    let start = (t * (HEADS + 2u * KV_HEADS) + head) * HEAD_DIM;
    if (head >= HEADS + KV_HEADS) {
        let kv_head = head - HEADS - KV_HEADS;
        write_v((position * KV_HEADS + kv_head) * HEAD_DIM + i, vec2<f32>(qkv[start + i], qkv[start + i + 1u]));
        return;
    }
    let pair = vec2<f32>(rotated(start, i, position), rotated(start, i + 1u, position));
    if (head >= HEADS) {
        write_k((position * KV_HEADS + head - HEADS) * HEAD_DIM + i, pair);
    } else {
        let index = (t * HEADS + head) * HEAD_DIM + i;
        q[index] = pair.x;
        q[index + 1u] = pair.y;
    }
}
