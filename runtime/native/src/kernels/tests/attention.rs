//! Attention, rotation and cache: every type of state, views, windows, odd widths of heads.

use super::*;

/// Softmax attention by its definition.
fn attended(a: &Attention, q: &[f32], k: &[f32], v: &[f32], rows: usize, position: usize) -> Vec<f32> {
    let (heads, width) = (a.n_heads as usize, a.head_dim as usize);
    let at = |view: Columns, row: usize, head: usize| row * view.stride as usize + view.offset as usize + head * width;
    let mut out = Vec::new();
    for t in 0..rows {
        for head in 0..heads {
            let kv_head = head / (heads / a.n_kv_heads as usize);
            let end = if a.causal { position + t + 1 } else { a.kv_rows as usize };
            let start = a.window.map_or(0, |window| end.saturating_sub(window as usize));
            let scores = (start..end).map(|s| {
                let (q, k) = (&q[at(a.q, t, head)..][..width], &k[at(a.k, s, kv_head)..][..width]);
                let score =
                    f64::from(a.scale) * q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
                a.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
            });
            let weights: Vec<f64> = scores.collect();
            let total: f64 = weights.iter().sum();
            for column in 0..width {
                let values = (start..end).map(|s| f64::from(v[at(a.v, s, kv_head) + column]));
                out.push((weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / total) as f32);
            }
        }
    }
    out
}

#[test]
fn attention_of_every_kind() {
    let mut random = Random(6);
    for kv in [Float::F16, Float::F32] {
        for (heads, kv_heads, width) in [(8, 1, 32), (14, 2, 64), (4, 4, 72), (3, 3, 6), (2, 1, 18)] {
            for (rows, position) in [(1, 0), (1, 66), (1, 700), (2, 15), (63, 7), (65, 0)] {
                let kv_rows = if position < 140 { 140 } else { 777 };
                let columns = |stride: usize, offset: usize| Columns { stride: stride as u32, offset: offset as u32 };
                let plain = Attention {
                    rows: None,
                    n_heads: heads as u32,
                    n_kv_heads: kv_heads as u32,
                    head_dim: width as u32,
                    scale: 2.0 / (width as f32).sqrt(),
                    soft_cap: None,
                    window: None,
                    causal: true,
                    kv_rows: kv_rows as u32,
                    q: columns(heads * width, 0),
                    k: columns(kv_heads * width, 0),
                    v: columns(kv_heads * width, 0),
                    kv,
                };
                let specs = [
                    Attention { soft_cap: Some(3.0), window: Some(9), ..plain.clone() },
                    Attention {
                        causal: false,
                        q: columns(heads * width + 4, 2),
                        k: columns(3 * kv_heads * width, kv_heads * width),
                        v: columns(3 * kv_heads * width, 2 * kv_heads * width),
                        ..plain.clone()
                    },
                    plain,
                ];
                for spec in specs {
                    let q = random.floats(rows * spec.q.stride as usize + 4);
                    let state = |random: &mut Random| {
                        let values = random.floats(kv_rows * spec.k.stride as usize);
                        let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
                        match kv {
                            Float::F32 => (bytes_of(&values), values),
                            Float::F16 => {
                                let bits: Vec<u16> = halves.iter().map(|x| x.to_bits()).collect();
                                (bytes_of(&bits), halves.iter().map(|x| x.to_f32()).collect())
                            }
                        }
                    };
                    let ((k_bytes, k), (v_bytes, v)) = (state(&mut random), state(&mut random));
                    let expected = attended(&spec, &q, &k, &v, rows, position);
                    let bindings = [bytes_of(&q), k_bytes, v_bytes, vec![0; expected.len() * 4]];
                    let what = format!("{spec:?} of {rows} rows at {position}");
                    for found in run(&NativeKernel::Attention(spec), call(rows, position), &bindings, &[3]) {
                        close(&found[0], &expected, 2e-5, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn rotation_and_cache() {
    let mut random = Random(7);
    let (rows, position, heads, kv_heads, width) = (3, 5, 3, 2, 20);
    let frequencies: Vec<f32> = (0..width / 2).map(|i| 0.7_f32.powi(i)).collect();
    let (width, columns) = (width as usize, (heads + 2 * kv_heads) * width as usize);
    let x = random.floats(rows * columns);
    let mut rotated = x.clone();
    for (t, row) in rotated.chunks_mut(columns).enumerate() {
        for head in row[..(heads + kv_heads) * width].chunks_mut(width) {
            for i in 0..width / 2 {
                let angle = f64::from((position + t) as f32 * frequencies[i]);
                let (a, b) = (f64::from(head[i]), f64::from(head[i + width / 2]));
                head[i] = (1.5 * (a * angle.cos() - b * angle.sin())) as f32;
                head[i + width / 2] = (1.5 * (b * angle.cos() + a * angle.sin())) as f32;
            }
        }
    }
    let part = |from: usize, length: usize| -> Vec<f32> {
        rotated.chunks(columns).flat_map(|row| row[from * width..][..length * width].to_vec()).collect()
    };
    let state_rows = 9;
    for state in [Float::F32, Float::F16] {
        let (n_heads, n_kv_heads, head_dim) = (heads as u32, kv_heads as u32, width as u32);
        let spec = RopeWriteKv { rows: None, n_heads, n_kv_heads, head_dim, magnitude: 1.5, state };
        let cache = vec![0_u8; state_rows * kv_heads * width * state.bytes()];
        let bindings =
            [bytes_of(&x), bytes_of(&frequencies), vec![0; rows * heads * width * 4], cache.clone(), cache.clone()];
        let kernel = NativeKernel::RopeWriteKv(spec);
        for found in run(&kernel, call(rows, position), &bindings, &[2, 3, 4]) {
            close(&found[0], &part(0, heads), 1e-5, "q");
            for (found, from) in found[1..].iter().zip([heads, heads + kv_heads]) {
                let values: Vec<f32> = match state {
                    Float::F32 => bytemuck::pod_collect_to_vec(found),
                    Float::F16 => found.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                };
                let row = kv_heads * width;
                let mut expected = vec![0.0; position * row];
                expected.extend(part(from, kv_heads));
                expected.resize(state_rows * row, 0.0);
                close(&bytes_of(&values), &expected, 2e-3, "state");
            }
        }
        assert!(check_call(&kernel, call(rows, 7), &bindings.each_ref().map(Vec::len)).is_err());
    }
    let spec = Rope { rows: None, n_heads: (columns / width) as u32, head_dim: width as u32, magnitude: 1.5 };
    let bindings = [bytes_of(&x), bytes_of(&frequencies), vec![0; x.len() * 4]];
    for found in run(&NativeKernel::Rope(spec), call(rows, position), &bindings, &[2]) {
        let found: Vec<f32> = bytemuck::pod_collect_to_vec(&found[0]);
        let rotated_part = (heads + kv_heads) * width;
        close(&bytes_of(&found[..rotated_part]), &rotated[..rotated_part], 1e-5, "rope");
    }
}
