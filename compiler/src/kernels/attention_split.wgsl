// Attention of one query row over SPLIT positions of the sequence, for up to four query heads of one key head:
// partial[h, split] = (Σ_j p[j] v[j], Σ_j p[j], m) with p[j] = exp(s[j] - m), s[j] = soft_cap(SCALE q[h]·k[j]), m = max s[j].
// attention_merge.wgsl makes the result of them. Splits outside the window leave zeros.
//
// Bound by reading k and v, each once for the four heads (whose scores are the components of vectors). A lane scores whole
// positions; then lanes own columns of v, in LANE_GROUPS groups that take positions in turn where a head is narrower
// than LANES vec4s, and the groups are summed in workgroup memory.
//
// Grid: x is splits of the positions so far, y is key heads, in HEAD_PARTS parts of four query heads.

const HIDDEN: f32 = -3.0e38;

var<workgroup> queries: array<vec4<f32>, 4u * COLUMNS>;
var<workgroup> scores: array<vec4<f32>, SPLIT>;
var<workgroup> reduced: array<vec4<f32>, LANES>;
var<workgroup> sums: array<vec4<f32>, 4u * LANES>;

fn sum_lanes(lane: u32, value: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    reduced[lane] = value;
    workgroupBarrier();
    if (lane < 8u) {
        var sum = reduced[lane];
        for (var i = lane + 8u; i < LANES; i += 8u) { sum += reduced[i]; }
        reduced[lane] = sum;
    }
    workgroupBarrier();
    var sum = reduced[0];
    for (var i = 1u; i < 8u; i++) { sum += reduced[i]; }
    return sum;
}

fn max_lanes(lane: u32, value: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    reduced[lane] = value;
    workgroupBarrier();
    if (lane < 8u) {
        var top = reduced[lane];
        for (var i = lane + 8u; i < LANES; i += 8u) { top = max(top, reduced[i]); }
        reduced[lane] = top;
    }
    workgroupBarrier();
    var top = reduced[0];
    for (var i = 1u; i < 8u; i++) { top = max(top, reduced[i]); }
    return top;
}

fn capped(scores: vec4<f32>) -> vec4<f32> {
    let s = scores * SCALE;
    return vec4<f32>(soft_cap(s.x), soft_cap(s.y), soft_cap(s.z), soft_cap(s.w));
}

fn sum_of(head: u32, column: u32) -> vec4<f32> {
    var sum = sums[head * LANES + column];
    for (var group = 1u; group < LANE_GROUPS; group++) { sum += sums[head * LANES + group * COLUMNS + column]; }
    return sum;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let kv_head = workgroup.y / HEAD_PARTS;
    let part = workgroup.y % HEAD_PARTS * 4u;
    let head = kv_head * GROUP + part;
    let heads = min(4u, GROUP - part);
    let begin = max(workgroup.x * SPLIT, keys_begin(0u));
    let end = min((workgroup.x + 1u) * SPLIT, keys_end(0u));

    for (var i = lane; i < 4u * COLUMNS; i += LANES) {
        queries[i] = q4(0u, head + min(i / COLUMNS, heads - 1u), i % COLUMNS);
    }
    workgroupBarrier();
    var top = vec4<f32>(HIDDEN);
    for (var key = begin + lane; key < end; key += LANES) {
        var score = vec4<f32>();
        for (var c = 0u; c < COLUMNS; c++) {
            let q = mat4x4<f32>(
                queries[c], queries[COLUMNS + c], queries[2u * COLUMNS + c], queries[3u * COLUMNS + c]);
            score += k4(key, kv_head, c) * q;
        }
        score = capped(score);
        scores[key - begin] = score;
        top = max(top, score);
    }
    top = max_lanes(lane, top);
    var total = vec4<f32>();
    for (var key = begin + lane; key < end; key += LANES) {
        let weight = exp(scores[key - begin] - top);
        scores[key - begin] = weight;
        total += weight;
    }
    total = sum_lanes(lane, total);

    let column = lane % COLUMNS;
    let group = lane / COLUMNS;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    if (group < LANE_GROUPS) {
        for (var key = begin + group; key < end; key += LANE_GROUPS) {
            let v = v4(key, kv_head, column);
            let weight = scores[key - begin];
            sum0 += weight.x * v;
            sum1 += weight.y * v;
            sum2 += weight.z * v;
            sum3 += weight.w * v;
        }
    }
    sums[lane] = sum0;
    sums[LANES + lane] = sum1;
    sums[2u * LANES + lane] = sum2;
    sums[3u * LANES + lane] = sum3;
    workgroupBarrier();
    for (var i = lane; i < heads * COLUMNS; i += LANES) {
        let c = i % COLUMNS;
        let h = i / COLUMNS;
        let start = ((head + h) * SPLITS + workgroup.x) * (HEAD_DIM + 2u);
        let sum = sum_of(h, c);
        for (var j = 0u; j < min(4u, HEAD_DIM - 4u * c); j++) { y[start + 4u * c + j] = sum[j]; }
        if (c == 0u) {
            y[start + HEAD_DIM] = total[h];
            y[start + HEAD_DIM + 1u] = top[h];
        }
    }
}
