// y[n] = epilogue(Σ_k w[n, k] x[k]) for one row x: decoding one token, bound by reading w once.
//
// A workgroup computes OUTPUTS adjacent rows of w. Lane l takes the blocks l, l + LANES, … of each row, so neighbouring
// lanes load neighbouring blocks of words (16 bytes each where the format allows) and each block of x is loaded, normalised
// and summed once for all OUTPUTS rows. RMS norm is linear in 1 / rms(x), so the squares are summed on the way and the
// sums are scaled at the end. Sums are reduced in workgroup memory in two steps, each with one barrier.
//
// Grid: ceil(N / OUTPUTS) workgroups, GRID_X in x and the rest in y.

const PARTS: u32 = LANES / OUTPUTS;

var<workgroup> partial: array<f32, LANES * (OUTPUTS + 1u)>;
var<workgroup> parts: array<f32, PARTS * (OUTPUTS + 1u)>;

// The sum of row `output` of this workgroup, once `parts` is complete.
fn total(output: u32) -> f32 {
    var sum = 0.0;
    for (var part = 0u; part < PARTS; part++) { sum += parts[output * PARTS + part]; }
    if (!NORM) { return sum; }
    var squares = 0.0;
    for (var part = 0u; part < PARTS; part++) { squares += parts[OUTPUTS * PARTS + part]; }
    return sum * inverseSqrt(squares / f32(K) + EPS);
}

// Sums one of the PARTS parts of what the lanes summed for `output`.
fn reduce(output: u32, part: u32) {
    var sum = 0.0;
    for (var i = 0u; i < OUTPUTS; i++) { sum += partial[output * LANES + i * PARTS + part]; }
    parts[output * PARTS + part] = sum;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let first = (workgroup.y * GRID_X + workgroup.x) * OUTPUTS;
    let last = N - 1u;
    var low = vec4<f32>();
    var high = vec4<f32>();
    var squares = 0.0;
    for (var block = lane; block < ROW_BLOCKS; block += LANES) {
        let x = x_block(block);
        low.x += dot_block(min(first, last), block, x);
        low.y += dot_block(min(first + 1u, last), block, x);
        low.z += dot_block(min(first + 2u, last), block, x);
        low.w += dot_block(min(first + 3u, last), block, x);
        high.x += dot_block(min(first + 4u, last), block, x);
        high.y += dot_block(min(first + 5u, last), block, x);
        high.z += dot_block(min(first + 6u, last), block, x);
        high.w += dot_block(min(first + 7u, last), block, x);
        squares += x.squares;
    }
    partial[lane] = low.x;
    partial[LANES + lane] = low.y;
    partial[2u * LANES + lane] = low.z;
    partial[3u * LANES + lane] = low.w;
    partial[4u * LANES + lane] = high.x;
    partial[5u * LANES + lane] = high.y;
    partial[6u * LANES + lane] = high.z;
    partial[7u * LANES + lane] = high.w;
    if (NORM) { partial[OUTPUTS * LANES + lane] = squares; }
    workgroupBarrier();
    reduce(lane / PARTS, lane % PARTS);
    if (NORM && lane < PARTS) { reduce(OUTPUTS, lane); }
    workgroupBarrier();
    output_lane(first, lane);
}
